/** What the function is, as its configuration header says it (PCI Local Bus 3.0 §6.2.1). */
export interface Identity {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
  /** 24 bits: base class, subclass, programming interface; for example 0x020000 for an Ethernet controller. */
  readonly classCode: number;
  readonly revisionId: number;
}
