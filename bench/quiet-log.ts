/** For emulators that are measured: only what went wrong is printed. */
export const quiet = { debug: () => {}, info: () => {}, warn: console.error, error: console.error };
