/** Enough for a panic with its registers and call trace. */
const keptLength = 64 * 1024;

/** The last part of the guest's serial console, and what the guest's kernel says there about its own end. */
export class ConsoleLog {
  #text = '';

  push(chunk: Buffer): void {
    this.#text = (this.#text + chunk.toString('latin1')).slice(-keptLength);
  }

  /** The last lines, without terminal control. */
  tail(lines = 40): string {
    const escapeCharacter = String.fromCharCode(27);
    return this.#text
      .replaceAll('\r', '')
      .replaceAll(new RegExp(`${escapeCharacter}(?:\\[[0-9;?]*[A-Za-z]|c)`, 'g'), '')
      .split('\n')
      .filter((line) => line.trim() !== '')
      .slice(-lines)
      .join('\n');
  }

  /** Whether the kernel has panicked, and whether it has said all about it (kernel/panic.c panic()). */
  panic(): 'none' | 'begun' | 'complete' {
    const start = this.#text.indexOf('Kernel panic - not syncing');
    if (start < 0) return 'none';
    return this.#text.indexOf('---[ end Kernel panic', start) < 0 ? 'begun' : 'complete';
  }

  /** Forgets everything, for example because the machine was reset. */
  clear(): void {
    this.#text = '';
  }
}
