/** SDMA packets that move, fill and compute memory. */
import { COST } from 'ghostbus/kit';
import { address48 } from '../bus/registers.js';
import { applyAtomic, semaphore } from './atomics.js';
import { inPieces, type Outcome, type Packet, PIECE_BYTES, qword } from './packet.js';
import { FIELD, HEADER, type SdmaContext } from './sdma-context.js';

/** Bytes that are copied or filled. */
const BYTES = { unitCost: COST.byte, granularity: PIECE_BYTES } as const;
/** Dwords that are read from the ring one by one, and page table entries that are computed: about 8 and 32 ns. */
const DWORDS = { unitCost: 32 } as const;
const ENTRIES = { unitCost: 128 } as const;

/** With BROADCAST a second destination follows the first. */
export function copyLinear(context: SdmaContext, packet: Packet, header: number): Outcome {
  const source = address48(packet.dword(3), packet.dword(4));
  const destinations = [address48(packet.dword(5), packet.dword(6))];
  if (HEADER.COPY_LINEAR.has(header, 'BROADCAST')) destinations.push(address48(packet.dword(7), packet.dword(8)));
  return inPieces(context.queue, FIELD.BYTE_COUNT.get(packet.dword(1), 'COUNT') + 1, BYTES, (start, count) => {
    for (const destination of destinations) packet.space.copy(destination + start, source + start, count);
  });
}

/** One side of a sub-window copy: where element (x, y, z) lies, from five dwords of the packet. */
function windowOf(packet: Packet, first: number, elementBytes: number): (y: number, z: number) => number {
  const base = address48(packet.dword(first), packet.dword(first + 1));
  const { X, Y } = FIELD.XY.unpack(packet.dword(first + 2));
  const { Z, PITCH } = FIELD.Z_PITCH.unpack(packet.dword(first + 3));
  const slicePitch = FIELD.SLICE_PITCH.get(packet.dword(first + 4), 'PITCH') + 1;
  return (row, slice) => base + elementBytes * (X + (Y + row) * (PITCH + 1) + (Z + slice) * slicePitch);
}

/** A box of elements between two pitched images; extents and pitches are in elements, less one. */
export function copyLinearSubWindow({ queue }: SdmaContext, packet: Packet, header: number): Outcome {
  const elementBytes = 2 ** HEADER.COPY_SUB_WINDOW.get(header, 'ELEMENT_SIZE');
  if (elementBytes > 16) return 'error';
  const [source, destination] = [windowOf(packet, 1, elementBytes), windowOf(packet, 6, elementBytes)];
  const extent = FIELD.XY.unpack(packet.dword(11));
  const rowBytes = (extent.X + 1) * elementBytes;
  const height = extent.Y + 1;
  const rows = height * (FIELD.Z_PITCH.get(packet.dword(12), 'Z') + 1);
  // A row costs page walks, however short it is.
  return inPieces(queue, rows, { unitCost: Math.max(rowBytes, PIECE_BYTES) * COST.byte }, (start, count) => {
    for (let row = start; row < start + count; row++) {
      const [y, z] = [row % height, Math.floor(row / height)];
      packet.space.copy(destination(y, z), source(y, z), rowBytes);
    }
  });
}

export function writeLinear(context: SdmaContext, packet: Packet): Outcome {
  const destination = address48(packet.dword(1), packet.dword(2));
  return inPieces(context.queue, FIELD.DWORD_COUNT.get(packet.dword(3), 'COUNT') + 1, DWORDS, (start, count) =>
    packet.space.write(destination + 4 * start, packet.payload(4 + start, count)),
  );
}

export function fence(_context: SdmaContext, packet: Packet): Outcome {
  packet.space.writeU32(address48(packet.dword(1) & ~3, packet.dword(2)), packet.dword(3));
  return 'next';
}

/**
 * WRITE_ONE sets instead of adding; without SIGNAL it waits. Mailboxes belong to pairs of engines that are not here.
 */
export function waitOrSignal(_context: SdmaContext, packet: Packet, header: number): Outcome {
  const { MAILBOX, SIGNAL, WRITE_ONE } = HEADER.SEM.unpack(header);
  if (MAILBOX === 1) return 'error';
  const address = address48(packet.dword(1) & ~7, packet.dword(2));
  if (SIGNAL === 0) return semaphore(packet.space, address, 'wait');
  return semaphore(packet.space, address, WRITE_ONE === 1 ? 'write one' : 'signal');
}

/** Times a byte, a word: a dword of nothing else. */
const EACH_BYTE = 0x0101_0101;
const EACH_WORD = 0x1_0001;

/** FILLSIZE 0: bytes, 1: 16-bit words, 2: dwords (ROCr's blit kernels and IGT use 2 for dwords). */
export function constantFill(context: SdmaContext, packet: Packet, header: number): Outcome {
  const data = packet.dword(3);
  const sizeCode = HEADER.CONST_FILL.get(header, 'FILLSIZE');
  if (sizeCode === 3) return 'error';
  const value = sizeCode === 0 ? (data & 0xff) * EACH_BYTE : sizeCode === 1 ? (data & 0xffff) * EACH_WORD : data;
  const destination = address48(packet.dword(1), packet.dword(2));
  return inPieces(context.queue, FIELD.BYTE_COUNT.get(packet.dword(4), 'COUNT') + 1, BYTES, (start, count) =>
    packet.space.fill(destination + start, value, count),
  );
}

export function generatePageTableEntries(context: SdmaContext, packet: Packet): Outcome {
  const destination = address48(packet.dword(1), packet.dword(2));
  const [flags, first, increment] = [qword(packet, 3), qword(packet, 5), qword(packet, 7)];
  return inPieces(context.queue, FIELD.ENTRY_COUNT.get(packet.dword(9), 'COUNT') + 1, ENTRIES, (start, count) => {
    const entries = new BigUint64Array(count);
    for (let index = 0; index < count; index++) entries[index] = (first + increment * BigInt(start + index)) | flags;
    packet.space.write(destination + 8 * start, new Uint8Array(entries.buffer));
  });
}

/** LOOP: a compare-and-swap is repeated until it swaps. */
export function atomic(context: SdmaContext, packet: Packet, header: number): Outcome {
  const address = address48(packet.dword(1), packet.dword(2));
  const { LOOP, ATOMIC_OP: code } = HEADER.ATOMIC.unpack(header);
  const request = { code, address, source: qword(packet, 3), compare: qword(packet, 5) };
  const result = applyAtomic(packet.space, request);
  if (result === undefined) return 'error';
  if (LOOP === 1 && !result.satisfied) return 'wait';
  context.keepAtomicResult(result);
  return 'next';
}
