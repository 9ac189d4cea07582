/** One file laid into the guest's root before its first driver loads. */
export interface GuestFile {
  /** Absolute path in the guest. */
  path: string;
  /** Permission bits; 0o644 unless given. */
  mode?: number;
  contents: Uint8Array;
}
