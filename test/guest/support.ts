/** What the guest tests of several devices share. */
import { packageFile } from 'ghostbus';

/** Programs about two devices at once. */
export const PROGRAMS = packageFile(import.meta.url, 'test/guest/programs');

export const progress = (text: string) => console.error(`    … ${text}`);
