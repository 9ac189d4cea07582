/**
 * Command packets of the queue managers, little-endian. Opcodes and the fields of the control word: Linux
 * include/gaudi/gaudi_packets.h. Fields that the kernel never reads (the register offset of WREG packets, predicates,
 * the arbitration point, LOAD_AND_EXE) follow Habana's user-space library hl-thunk, specs/gaudi/gaudi_packets.h.
 *
 * Every packet starts with two words; in the second, the control word, bits 28:24 are the opcode, 29 engine barrier, 30
 * register barrier, 31 message barrier.
 */
import { BitFields32, ImageBuilder } from 'ghostbus/kit';

export const OPCODE = {
  wreg32: 0x1,
  wregBulk: 0x2,
  msgLong: 0x3,
  msgShort: 0x4,
  cpDma: 0x5,
  repeat: 0x6,
  msgProt: 0x7,
  fence: 0x8,
  linDma: 0x9,
  nop: 0xa,
  stop: 0xb,
  arbPoint: 0xc,
  wait: 0xd,
  loadAndExe: 0xf,
} as const;

/** Bytes of each packet by opcode; 0 is no packet. WREG_BULK carries `size64` further quadwords. */
export const PACKET_BYTES: readonly number[] = (() => {
  const sizes = new Array<number>(32).fill(0);
  for (const code of Object.values(OPCODE)) sizes[code] = 8;
  for (const code of [OPCODE.msgLong, OPCODE.cpDma, OPCODE.msgProt, OPCODE.loadAndExe]) sizes[code] = 16;
  sizes[OPCODE.linDma] = 24;
  return sizes;
})();

export const HEADER_BYTES = 8;
export const LONGEST_PACKET_BYTES = 24;

/** LIN_DMA control bits, the same as DMA_CORE_COMMIT (dma0_core_masks.h). */
export const DMA_CONTROL = {
  writeCompletion: 1 << 0,
  transpose: 1 << 1,
  dtype: 1 << 2,
  linear: 1 << 3,
  memset: 1 << 4,
  compress: 1 << 5,
  decompress: 1 << 6,
} as const;

/** LOAD_AND_EXE configuration word: destination scalars (else predicates), load, execute, execute the upper pair. */
export const LOAD_AND_EXE = { toScalars: 1 << 0, load: 1 << 8, execute: 1 << 9, upperPair: 1 << 10 } as const;

/** The control word of every packet. */
export const PACKET_CONTROL = new BitFields32({
  opcode: [24, 5],
  engineBarrier: [29, 1],
  registerBarrier: [30, 1],
  messageBarrier: [31, 1],
});
/** Control words by packet. `predicate`: the register that a packet depends on; register 0 is always true. */
export const WREG_CONTROL = new BitFields32({ predicate: [0, 5], offset: [8, 16] });
/** The first word of WREG_BULK. */
export const BULK_CONFIGURATION = new BitFields32({ size64: [0, 16] });
export const MESSAGE_CONTROL = new BitFields32({ predicate: [0, 5], operation: [20, 2] });
export const SHORT_CONTROL = new BitFields32({ offset: [0, 16], base: [22, 2] });
/** Configuration words: GAUDI_PKT_FENCE_CFG_*, GAUDI_PKT_WAIT_CFG_*, ARB_POINT. */
export const FENCE_CONFIGURATION = new BitFields32({ decrement: [0, 4], target: [16, 8], id: [30, 2] });
export const WAIT_CONFIGURATION = new BitFields32({ cycles: [0, 24], increment: [24, 4], fence: [28, 2] });
export const ARB_POINT_CONFIGURATION = new BitFields32({ priority: [0, 8], release: [31, 1] });

/** Packets as bytes, for tests and for people who write drivers in TypeScript. */
export const packet = {
  wreg32: (offset: number, value: number, predicate = 0) =>
    words(value, control(OPCODE.wreg32, WREG_CONTROL.pack({ offset, predicate }))),
  wregBulk: (offset: number, values: readonly number[]) =>
    words(values.length / 2, control(OPCODE.wregBulk, WREG_CONTROL.pack({ offset })), ...values),
  msgLong: (address: number, value: number, predicate = 0, operation = 0) =>
    words(value, control(OPCODE.msgLong, MESSAGE_CONTROL.pack({ predicate, operation })), ...halves(address)),
  msgProt: (address: number, value: number) => words(value, control(OPCODE.msgProt, 0), ...halves(address)),
  msgShort: (base: number, offset: number, value: number) =>
    words(value, control(OPCODE.msgShort, SHORT_CONTROL.pack({ offset, base }))),
  cpDma: (address: number, lengthBytes: number) => words(lengthBytes, control(OPCODE.cpDma, 0), ...halves(address)),
  fence: (id: number, target: number, decrement: number) =>
    words(FENCE_CONFIGURATION.pack({ id, target, decrement }), control(OPCODE.fence, 0)),
  linDma: (source: number, destination: number, lengthBytes: number, flags: number = DMA_CONTROL.linear) =>
    words(lengthBytes, control(OPCODE.linDma, flags), ...halves(source), ...halves(destination)),
  memset: (patternLow: number, patternHigh: number, destination: number, lengthBytes: number, flags = 0) =>
    words(
      lengthBytes,
      control(OPCODE.linDma, DMA_CONTROL.linear | DMA_CONTROL.memset | flags),
      patternLow,
      patternHigh,
      ...halves(destination),
    ),
  nop: () => words(0, control(OPCODE.nop, 0)),
  stop: () => words(0, control(OPCODE.stop, 0)),
  arbPoint: (priority: number, release: boolean) =>
    words(ARB_POINT_CONFIGURATION.pack({ priority, release: Number(release) }), control(OPCODE.arbPoint, 0)),
  wait: (cycles: number, id: number, increment: number) =>
    words(WAIT_CONFIGURATION.pack({ cycles, increment, fence: id }), control(OPCODE.wait, 0)),
  loadAndExe: (address: number, configuration: number) =>
    words(configuration, control(OPCODE.loadAndExe, 0), ...halves(address)),
} as const;

function control(code: number, fields: number): number {
  return PACKET_CONTROL.set(fields, 'opcode', code);
}

function halves(address: number): [number, number] {
  return [address >>> 0, Math.floor(address / 2 ** 32)];
}

function words(...values: number[]): Uint8Array {
  return new ImageBuilder({ sizeBytes: 4 * values.length }).u32(0, ...values).bytes;
}
