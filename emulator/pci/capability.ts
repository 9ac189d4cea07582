/**
 * One PCI capability as a value. Configuration space places it, links it and applies its masks; it knows none by name.
 */
export interface Capability {
  /** Name for messages and dumps, for example `MSI-X`. */
  readonly name: string;
  /** Capability id: 8 bits in the standard list, 16 bits in the extended list. */
  readonly id: number;
  /** True: lives in the extended list at 0x100 and above, with a 4-byte header. */
  readonly extended: boolean;
  /** Version field of an extended capability's header. */
  readonly version?: number;
  /** Fixed place in configuration space; without it, config space chooses the next free dword. */
  readonly offset?: number;
  /** Power-on contents from the header on. The header's id and next fields are filled in by config space. */
  readonly bytes: Uint8Array;
  /** Bits that software can write, same length as `bytes`. */
  readonly writable: Uint8Array;
  /** Bits that a written 1 clears, same length as `bytes`. */
  readonly writeOneToClear?: Uint8Array;
  /** Bits that a function-level reset keeps (sticky, PCIe 6.0 §7.4), same length as `bytes`. */
  readonly sticky?: Uint8Array;
  /**
   * Called after a write that touched this capability has been merged. `written` holds the raw bytes as written (zero
   * where not touched), `current` the merged contents, which it may change, `previous` the contents before. All three
   * are as long as `bytes` and start at the header. Returns what the write asks the function to do.
   */
  afterWrite?(current: Uint8Array, written: Uint8Array, previous: Uint8Array): CapabilityEffect | undefined;
  /** What the capability says about interrupts; read by the function to size its vectors. */
  readonly interrupts?: InterruptCapability;
}

export type CapabilityEffect = 'function-level-reset';

export type InterruptCapability =
  | { readonly kind: 'msi'; readonly vectors: number }
  | {
      readonly kind: 'msix';
      readonly vectors: number;
      readonly tableBar: number;
      readonly tableOffset: number;
      readonly pendingBar: number;
      readonly pendingOffset: number;
    };
