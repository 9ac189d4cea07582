/** An access of one of the device's engines that did not complete. */

export type AccessDirection = 'read' | 'write';

/**
 * `page-fault`: the MMU found no translation. `decode`: nobody on the device answers at this address. `bus`: the
 * request went out to the host and failed there.
 */
type FaultKind = 'page-fault' | 'decode' | 'bus';

export class DeviceFault extends Error {
  readonly kind: FaultKind;
  readonly direction: AccessDirection;
  /** As the engine issued it, before translation. */
  readonly address: number;

  constructor(kind: FaultKind, direction: AccessDirection, address: number, detail?: string) {
    super(`${direction} of 0x${address.toString(16)}: ${kind}${detail === undefined ? '' : ` (${detail})`}`);
    this.name = 'DeviceFault';
    this.kind = kind;
    this.direction = direction;
    this.address = address;
  }
}
