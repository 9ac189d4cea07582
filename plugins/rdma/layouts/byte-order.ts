/** Everything that the adapter shares with software is big-endian; registers of the bus are little-endian. */

/** Turns a big-endian dword into what a little-endian register holds, and back. */
export function swap32(value: number): number {
  return (((value & 0xff) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | ((value >>> 24) & 0xff)) >>> 0;
}
