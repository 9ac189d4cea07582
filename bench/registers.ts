import { Bus } from '../emulator/bus.js';
import type { EmulatedFunction } from '../emulator/function.js';
import { Machine } from '../emulator/machine.js';
import device, { VALUES } from './device.js';
import { quiet } from './quiet-log.js';

const ACCESSES = 200_000;
/** The best of these is taken: what else the host does only adds. */
const ROUNDS = 15;
const REGISTER_BYTES = 4;

/** Nanoseconds of one read of a register, from the bytes that QEMU asks for to the bytes of the answer. */
export interface RegisterCosts {
  /** By the function: BAR, decoder, register block. */
  readonly decodedNs: number;
  /** By the least that a model in this language does: a look-up in a map, and a call. */
  readonly plainNs: number;
}

export function measureRegisters(): RegisterCosts {
  const bus = new Bus({ log: quiet });
  const machine = new Machine(bus, 'address');
  try {
    const created = device.create({}, machine.context('bench0', 0, quiet));
    if (!('bars' in created)) throw new Error('the device of the benchmark has one function');
    return compare(machine.add('bench0', created, { log: quiet }));
  } finally {
    machine.close();
    bus.close();
  }
}

function compare(emulated: EmulatedFunction): RegisterCosts {
  const offsets = Array.from({ length: VALUES.count }, (_, index) => VALUES.offset + REGISTER_BYTES * index);
  const handlers = new Map(offsets.map((offset) => [offset, () => offset]));
  const answer = new Uint8Array(REGISTER_BYTES);
  const view = new DataView(answer.buffer);
  return {
    decodedNs: bestNs((index) => emulated.regionRead(0, offsets[index % VALUES.count]!, answer)),
    plainNs: bestNs((index) => view.setUint32(0, handlers.get(offsets[index % VALUES.count]!)!(), true)),
  };
}

function bestNs(access: (index: number) => void): number {
  const round = () => {
    const start = process.hrtime.bigint();
    for (let index = 0; index < ACCESSES; index++) access(index);
    return Number(process.hrtime.bigint() - start) / ACCESSES;
  };
  return Math.min(...Array.from({ length: ROUNDS }, round));
}
