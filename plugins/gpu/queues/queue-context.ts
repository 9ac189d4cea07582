import type { FunctionPort } from 'ghostbus';
import { COST, type FloodGuard } from 'ghostbus/kit';
import type { Mmio } from '../bus/mmio.js';
import { referenceTicks } from '../bus/reference-clock.js';
import { hex } from '../bus/registers.js';
import type { AddressSpace } from '../memory/address-space.js';
import type { Hub } from '../memory/hub.js';
import type { PacketContext, PacketRing } from '../packets/packet.js';

/** What every engine gives the contexts of its queues. */
export interface QueueContextParts {
  readonly port: FunctionPort;
  readonly log: FloodGuard;
  readonly mmio: Mmio;
  readonly hub: Hub;
  /** Who this engine is to the hub; default: the hub's first engine. */
  readonly hubClient?: number;
}

/** What the packets of any ring, SDMA's or the command processor's, may ask of the GPU around them. */
export abstract class QueueContext implements PacketContext {
  readonly #parts: QueueContextParts;

  constructor(parts: QueueContextParts) {
    this.#parts = parts;
  }

  abstract readonly queue: PacketRing & { readonly name: string };

  get name(): string {
    return this.queue.name;
  }

  /** A user's packet named a register that only the kernel may write: the engine's interrupt for it. */
  protected abstract refuse(dword: number): void;

  space(vmid: number): AddressSpace {
    return this.#parts.hub.space(vmid, this.#parts.hubClient);
  }

  readRegister(dword: number): number {
    this.queue.budget.charge(COST.registerAccess);
    return this.#parts.mmio.readDword(dword);
  }

  writeRegister(dword: number, value: number): void {
    this.queue.budget.charge(COST.registerAccess);
    this.#parts.mmio.writeDword(dword, value);
  }

  protectedRegister(dword: number): void {
    this.#parts.log
      .source('protected register')
      .warn(`${this.name}: a user's commands may not write register dw ${hex(dword)}`);
    this.refuse(dword);
  }

  timestamp(): bigint {
    return referenceTicks(this.#parts.port.clock);
  }
}
