/** Every capability that a function can list; one file each. */
export type { Capability } from './capability.js';
