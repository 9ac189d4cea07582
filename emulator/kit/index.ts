/** What devices share: written once, used by those of this repository and by others. */
export { FloodGuard } from './flood-guard.js';
