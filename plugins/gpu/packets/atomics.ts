/**
 * Atomic operations and semaphores in memory, for SDMA (ATOMIC, SEM) and for the command processor (ATOMIC_MEM,
 * MEM_SEMAPHORE) alike. Operation codes: include/vega10_enum.h, enum TC_OP.
 */
import { BitFields32 } from 'ghostbus/kit';
import type { AddressSpace } from '../memory/address-space.js';
import type { Outcome } from './packet.js';

/** An operation code: WIDE is for 64 bits, NO_RETURN when nobody wants the previous value. */
const CODE = new BitFields32({ OPERATION: [0, 5], WIDE: [5, 1], NO_RETURN: [6, 1] });

const ATOMIC = {
  SWAP: 0x07,
  COMPARE_AND_SWAP: 0x08,
  ADD: 0x0f,
  SUBTRACT: 0x10,
  SIGNED_MIN: 0x11,
  UNSIGNED_MIN: 0x12,
  SIGNED_MAX: 0x13,
  UNSIGNED_MAX: 0x14,
  AND: 0x15,
  OR: 0x16,
  XOR: 0x17,
  INCREMENT: 0x18,
  DECREMENT: 0x19,
} as const;

interface Operands {
  readonly old: bigint;
  readonly source: bigint;
  readonly compare: bigint;
  readonly width: number;
}

type Operation = (operands: Operands) => bigint;

/** Smaller (or larger) of two by their value as signed numbers. */
function signed(pick: (left: bigint, right: bigint) => boolean): Operation {
  return ({ old, source, width }) => (pick(BigInt.asIntN(width, old), BigInt.asIntN(width, source)) ? old : source);
}

const OPERATIONS = new Map<number, Operation>([
  [ATOMIC.SWAP, ({ source }) => source],
  [ATOMIC.COMPARE_AND_SWAP, ({ old, source, compare }) => (old === compare ? source : old)],
  [ATOMIC.ADD, ({ old, source }) => old + source],
  [ATOMIC.SUBTRACT, ({ old, source }) => old - source],
  [ATOMIC.SIGNED_MIN, signed((left, right) => left < right)],
  [ATOMIC.UNSIGNED_MIN, ({ old, source }) => (old < source ? old : source)],
  [ATOMIC.SIGNED_MAX, signed((left, right) => left > right)],
  [ATOMIC.UNSIGNED_MAX, ({ old, source }) => (old > source ? old : source)],
  [ATOMIC.AND, ({ old, source }) => old & source],
  [ATOMIC.OR, ({ old, source }) => old | source],
  [ATOMIC.XOR, ({ old, source }) => old ^ source],
  // Both wrap at the source, as the shader instructions of the same names do.
  [ATOMIC.INCREMENT, ({ old, source }) => (old >= source ? 0n : old + 1n)],
  [ATOMIC.DECREMENT, ({ old, source }) => (old === 0n || old > source ? source : old - 1n)],
]);

interface AtomicRequest {
  /** Seven bits of a packet. */
  readonly code: number;
  readonly address: number;
  readonly source: bigint;
  readonly compare: bigint;
}

export interface AtomicResult {
  readonly previous: bigint;
  /** False: a compare-and-swap that did not swap. */
  readonly satisfied: boolean;
  readonly returns: boolean;
}

/** Does it and tells what was there; undefined for a code that is no integer operation. */
export function applyAtomic(
  space: AddressSpace,
  { code, address, source, compare }: AtomicRequest,
): AtomicResult | undefined {
  const operation = OPERATIONS.get(CODE.get(code, 'OPERATION'));
  if (operation === undefined) return undefined;
  const wide = CODE.has(code, 'WIDE');
  const width = wide ? 64 : 32;
  const aligned = address - (address % (width / 8));
  const old = wide ? space.readU64(aligned) : BigInt(space.readU32(aligned));
  const narrow = (value: bigint) => BigInt.asUintN(width, value);
  const operands = { old, source: narrow(source), compare: narrow(compare), width };
  const value = narrow(operation(operands));
  // A processor of the guest may write the same place between our read and our write: nothing is written without need.
  if (value !== old && wide) space.writeU64(aligned, value);
  else if (value !== old) space.writeU32(aligned, Number(value));
  const satisfied = CODE.get(code, 'OPERATION') !== ATOMIC.COMPARE_AND_SWAP || old === operands.compare;
  return { previous: old, satisfied, returns: !CODE.has(code, 'NO_RETURN') };
}

/** A 64-bit counter in memory. Signalling adds one, or writes one; waiting takes one as soon as there is any. */
export function semaphore(space: AddressSpace, address: number, action: 'signal' | 'write one' | 'wait'): Outcome {
  const value = space.readU64(address);
  if (action === 'wait') {
    if (value === 0n) return 'wait';
    space.writeU64(address, value - 1n);
  } else space.writeU64(address, action === 'signal' ? value + 1n : 1n);
  return 'next';
}
