/** Says what happens in plain words, with the evidence, and keeps count of what held. */
const GREEN = '32';
const RED = '31';
const BOLD = '1';
const FAINT = '2';

export class Report {
  held = 0;
  broken = 0;
  readonly #output: NodeJS.WritableStream;
  readonly colours: boolean;

  constructor(output: NodeJS.WritableStream, colours: boolean) {
    this.#output = output;
    this.colours = colours;
  }

  /** A part of the demo. */
  chapter(text: string): void {
    this.#line(`\n${this.#paint(BOLD, text)}`);
  }

  /** What is shown next, in plain words. */
  step(text: string): void {
    this.#line(`\n${text}`);
  }

  /** What a program printed or a counter says, as it is. */
  evidence(lines: string | readonly string[]): void {
    for (const line of typeof lines === 'string' ? lines.trimEnd().split('\n') : lines) {
      this.#line(this.#paint(FAINT, `      ${line}`));
    }
  }

  /** Lines that are formatted already. */
  text(lines: string): void {
    this.#line(`\n${lines.trimEnd()}\n`);
  }

  /** A claim, and whether it holds. */
  check(holds: boolean, claim: string): void {
    if (holds) this.held++;
    else this.broken++;
    this.#line(holds ? `   ${this.#paint(GREEN, 'ok')} ${claim}` : `   ${this.#paint(RED, 'NOT SO:')} ${claim}`);
  }

  #paint(code: string, text: string): string {
    return this.colours ? `\u001b[${code}m${text}\u001b[0m` : text;
  }

  #line(text: string): void {
    this.#output.write(`${text}\n`);
  }
}

/** 16777216 becomes `16 MiB`, 4660 stays `4660 bytes`. */
export function inWords(bytes: number): string {
  for (const [unit, size] of [
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
    ['KiB', 2 ** 10],
  ] as const) {
    if (bytes >= size && bytes % size === 0) return `${bytes / size} ${unit}`;
  }
  return `${bytes} bytes`;
}
