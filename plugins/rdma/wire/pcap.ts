/**
 * Capture files in the classic format (https://www.tcpdump.org/manpages/pcap-savefile.5.html), times in nanoseconds.
 */
import { openSync, writeSync } from 'node:fs';

const MAGIC_NANOSECONDS = 0xa1b23c4d;
const LINKTYPE_ETHERNET = 1;
const SNAP_BYTES = 262_144;
const NANOSECONDS_PER_SECOND = 1_000_000_000n;

export class PcapFile {
  readonly #fd: number;

  /** Makes or empties the file. Throws what `open` throws. */
  constructor(path: string) {
    this.#fd = openSync(path, 'w');
    const header = new DataView(new ArrayBuffer(24));
    header.setUint32(0, MAGIC_NANOSECONDS, true);
    header.setUint16(4, 2, true);
    header.setUint16(6, 4, true);
    header.setUint32(16, SNAP_BYTES, true);
    header.setUint32(20, LINKTYPE_ETHERNET, true);
    writeSync(this.#fd, new Uint8Array(header.buffer));
  }

  write(frame: Uint8Array, timeNs: bigint): void {
    const header = new DataView(new ArrayBuffer(16));
    header.setUint32(0, Number(timeNs / NANOSECONDS_PER_SECOND), true);
    header.setUint32(4, Number(timeNs % NANOSECONDS_PER_SECOND), true);
    header.setUint32(8, Math.min(frame.length, SNAP_BYTES), true);
    header.setUint32(12, frame.length, true);
    writeSync(this.#fd, new Uint8Array(header.buffer));
    writeSync(this.#fd, frame.subarray(0, SNAP_BYTES));
  }
}
