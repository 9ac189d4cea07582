/**
 * What a packet is to those who execute it, SDMA's and the command processor's alike: its dwords, the memory that it
 * sees, and the ring around it. Who fetches packets is not their concern: queues/command-queue.ts does.
 */
import type { WorkBudget, WorkUnits } from 'ghostbus/kit';
import type { AddressSpace } from '../memory/address-space.js';

/** What became of a packet. `again`: it did a slice's worth and continues; `wait`: its condition does not hold yet. */
export type Outcome = 'next' | 'again' | 'wait' | 'error';

/** One packet under execution. Dwords beyond its length read as zero. */
export interface Packet {
  /** Memory as the packet sees it. */
  readonly space: AddressSpace;
  readonly lengthDwords: number;
  dword(index: number): number;
  /** `count` dwords from dword `first` on, as bytes. */
  payload(first: number, count: number): Uint8Array;
}

/** Commands in memory: the ring itself, or an indirect buffer. */
export interface CommandBuffer {
  readonly space: AddressSpace;
  readonly address: number;
  readonly sizeDwords: number;
}

/** The ring that a packet came from, as far as packets act on it. */
export interface PacketRing {
  /** 1 in the ring, one more per indirect buffer. */
  readonly depth: number;
  /** How far the current packet has come, in its own unit; zero at its start. */
  progress: number;
  /** What this turn of the ring may still do. */
  readonly budget: WorkBudget;
  /** Continues with another buffer, after this one or (`chain`) in its place. False when nested too deeply. */
  call(buffer: CommandBuffer, packetDwords: number, chain?: boolean): boolean;
  /** Skips dwords after the current packet (a conditional execution that does not take place). */
  skip(dwords: number): void;
}

/** What any packet can do to the GPU around its ring. */
export interface PacketContext {
  readonly queue: PacketRing;
  /** A VMID becomes a view of memory. */
  space(vmid: number): AddressSpace;
  readRegister(dword: number): number;
  writeRegister(dword: number, value: number): void;
  /** A user's commands tried to write a register. */
  protectedRegister(dword: number): void;
  timestamp(): bigint;
}

/** Pieces are whole pages where bytes are moved, so that a fill's pattern keeps its phase from one to the next. */
export const PIECE_BYTES = 4096;

/** How a long packet is done in pieces. */
interface PieceShape {
  /** What a unit of the packet's work costs. */
  readonly unitCost: WorkUnits;
  /** Pieces are multiples of this, but for the last one. Default 1. */
  readonly granularity?: number;
}

/** Does `total` units of work as the ring's budget allows; `step` gets where a piece starts and how long it is. */
export function inPieces(
  ring: PacketRing,
  total: number,
  { unitCost, granularity = 1 }: PieceShape,
  step: (start: number, count: number) => void,
): Outcome {
  const affordable = Math.max(1, Math.floor(ring.budget.left / (unitCost * granularity))) * granularity;
  const count = Math.min(total - ring.progress, affordable);
  step(ring.progress, count);
  ring.progress += count;
  ring.budget.charge(count * unitCost);
  return ring.progress >= total ? 'next' : 'again';
}

/**
 * Only the kernel's commands, those of VMID 0, may write registers: others are refused (interrupt sources 184 and 247).
 */
export function writeRegister(context: PacketContext, packet: Packet, dword: number, value: number): void {
  if (packet.space.vmid === 0) context.writeRegister(dword, value);
  else context.protectedRegister(dword);
}

/** Two halves of 32 bits as one value. */
export function join(low: number, high: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

/** A 64-bit value in two dwords, low first. */
export function qword(packet: Packet, first: number): bigint {
  return join(packet.dword(first), packet.dword(first + 1));
}

/** Compares as the function field of POLL_REGMEM (vega10_sdma_pkt_open.h) and of WAIT_REG_MEM (soc15d.h) says. */
const COMPARISONS: readonly ((value: number, reference: number) => boolean)[] = [
  () => true,
  (value, reference) => value < reference,
  (value, reference) => value <= reference,
  (value, reference) => value === reference,
  (value, reference) => value !== reference,
  (value, reference) => value >= reference,
  (value, reference) => value > reference,
];

/** Function 7 does not exist: it never holds. */
export function compare(func: number, value: number, reference: number): boolean {
  return COMPARISONS[func]?.(value, reference) ?? false;
}
