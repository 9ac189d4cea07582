import type { AttachedFunction } from './topology.js';

/**
 * In which order a restored guest gets its functions: those of one kind one after another, each once the guest has seen
 * the one before, so that their drivers number them as they do at boot; different kinds at the same time.
 */
export class PlugQueue {
  /** Indexes of functions that wait, by kind. */
  readonly #waiting = new Map<string, number[]>();
  #text = '';

  constructor(functions: readonly Pick<AttachedFunction, 'id' | 'ids'>[]) {
    for (const [index, { id, ids = id }] of functions.entries()) {
      this.#waiting.set(ids, [...(this.#waiting.get(ids) ?? []), index]);
    }
  }

  /**
   * Takes what the guest's `wake` prints, `ready` and `seen VENDOR:DEVICE`, a line each. Returns the indexes of the
   * functions whose turn it is now.
   */
  hear(text: string): number[] {
    const lines = (this.#text + text).split('\n');
    this.#text = lines.pop() ?? '';
    return lines.flatMap((line) => {
      const kinds = line === 'ready' ? [...this.#waiting.keys()] : [line.replace(/^seen /, '')];
      return kinds.flatMap((kind) => this.#waiting.get(kind)?.splice(0, 1) ?? []);
    });
  }
}
