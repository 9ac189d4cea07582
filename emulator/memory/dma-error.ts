/** Why a DMA request failed, as the requester's completer would report it. */
export type DmaFailure =
  /** Bus Master Enable is clear: the request never leaves the function. */
  | 'bus-master-disabled'
  /** Nobody claims the address (PCIe Unsupported Request). */
  | 'unsupported-request'
  /** The mapping exists but forbids this direction. */
  | 'access-denied'
  /** The address is only reachable by DMA messages and a register handler is being answered. */
  | 'would-deadlock'
  /** QEMU answered a DMA message with an error, or not at all. */
  | 'message-failed';

/**
 * By these, not by its class, an error is recognised: a plugin may come with a copy of this package of its own, so that
 * the class which the emulator throws is not the one that the plugin imported.
 */
const DMA_ERROR = Symbol.for('ghostbus.DmaError');
const PORT_CLOSED_ERROR = Symbol.for('ghostbus.PortClosedError');

const isBranded = (value: unknown, brand: symbol): boolean =>
  typeof value === 'object' && value !== null && brand in value;

/**
 * A DMA request that did not complete. Device code turns it into the error its data book prescribes.
 * `instanceof` knows those of every copy of this package.
 */
export class DmaError extends Error {
  static override [Symbol.hasInstance](value: unknown): boolean {
    return isBranded(value, DMA_ERROR);
  }

  readonly [DMA_ERROR] = true;
  readonly failure: DmaFailure;
  readonly address: number;
  readonly lengthBytes: number;

  constructor(failure: DmaFailure, direction: 'read' | 'write', address: number, lengthBytes: number, detail?: string) {
    super(
      `DMA ${direction} of ${lengthBytes} bytes at 0x${address.toString(16)}: ${failure}${detail === undefined ? '' : ` (${detail})`}`,
    );
    this.name = 'DmaError';
    this.failure = failure;
    this.address = address;
    this.lengthBytes = lengthBytes;
  }
}

/**
 * DMA by a model that was thrown away. Device code lets it pass: whatever was under way ends there, and the emulator,
 * which knows that this work is nobody's any more, drops it. `instanceof` knows those of every copy of this package.
 */
export class PortClosedError extends Error {
  static override [Symbol.hasInstance](value: unknown): boolean {
    return isBranded(value, PORT_CLOSED_ERROR);
  }

  readonly [PORT_CLOSED_ERROR] = true;

  constructor(functionName: string, reason: string) {
    super(
      `DMA of ${functionName} after the end of its model (${reason}): nothing is moved; the work that asked must end`,
    );
    this.name = 'PortClosedError';
  }
}
