/** Objects that are nothing but a number: protection domains, transport domains, XRC domains, UARs. */
import { LIMITS } from './capabilities.js';
import type { CommandTable } from './command.js';
import { type ObjectTable, objectTable } from './object-table.js';

export class Allocators {
  readonly #protectionDomains = objectTable<true>('protection domain', 1, 2 ** LIMITS.logProtectionDomains);
  readonly #transportDomains = objectTable<true>('transport domain', 1, 1024);
  readonly #xrcDomains = objectTable<true>('XRC domain', 1, 1024);
  readonly #uars: ObjectTable<true>;

  /** UARs are pages of BAR0, from `firstUar` to `lastUar`. */
  constructor(firstUar: number, lastUar: number) {
    this.#uars = objectTable<true>('UAR', firstUar, lastUar);
  }

  get commands(): CommandTable {
    return {
      ALLOC_PD: (call) => call.answerNumber(this.#protectionDomains.add(() => true)),
      DEALLOC_PD: (call) => void this.#protectionDomains.remove(call.number),
      ALLOC_TRANSPORT_DOMAIN: (call) => call.answerNumber(this.#transportDomains.add(() => true)),
      DEALLOC_TRANSPORT_DOMAIN: (call) => void this.#transportDomains.remove(call.number),
      ALLOC_XRCD: (call) => call.answerNumber(this.#xrcDomains.add(() => true)),
      DEALLOC_XRCD: (call) => void this.#xrcDomains.remove(call.number),
      ALLOC_UAR: (call) => call.answerNumber(this.#uars.add(() => true)),
      DEALLOC_UAR: (call) => void this.#uars.remove(call.number),
    };
  }

  counts(): Record<string, number> {
    return {
      protectionDomains: this.#protectionDomains.size,
      transportDomains: this.#transportDomains.size,
      xrcDomains: this.#xrcDomains.size,
      uars: this.#uars.size,
    };
  }
}
