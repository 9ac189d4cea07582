/** Tells of steps that take noticeable time; never on stdout, which belongs to the command in the guest. */
export function printProgress(text: string): void {
  process.stderr.write(`ghostbus: ${text}\n`);
}
