/**
 * Command packets of the queue managers, little-endian. Opcodes and the fields of the control word: Linux
 * include/gaudi/gaudi_packets.h. Fields that the kernel never reads (the register offset of WREG packets, predicates, the
 * arbitration point, LOAD_AND_EXE) follow Habana's user-space library hl-thunk, specs/gaudi/gaudi_packets.h.
 *
 * Every packet starts with two words; in the second, the control word, bits 28:24 are the opcode, 29 engine barrier,
 * 30 register barrier, 31 message barrier.
 */

export const opcode = {
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
export const packetBytes: readonly number[] = (() => {
  const sizes = new Array<number>(32).fill(0);
  for (const code of Object.values(opcode)) sizes[code] = 8;
  for (const code of [opcode.msgLong, opcode.cpDma, opcode.msgProt, opcode.loadAndExe]) sizes[code] = 16;
  sizes[opcode.linDma] = 24;
  return sizes;
})();

export const HEADER_BYTES = 8;
export const LONGEST_PACKET_BYTES = 24;

/** GAUDI_PKT_CTL_*: barriers. */
export const barrier = { engine: 0x20000000, register: 0x40000000, message: 0x80000000 } as const;

/** LIN_DMA control bits, the same as DMA_CORE_COMMIT (dma0_core_masks.h). */
export const dmaControl = {
  writeCompletion: 1 << 0,
  transpose: 1 << 1,
  dtype: 1 << 2,
  linear: 1 << 3,
  memset: 1 << 4,
  compress: 1 << 5,
  decompress: 1 << 6,
} as const;

/** LOAD_AND_EXE configuration word: destination scalars (else predicates), load, execute, execute the upper pair. */
export const loadAndExe = { toScalars: 1 << 0, load: 1 << 8, execute: 1 << 9, upperPair: 1 << 10 } as const;

export const opcodeOf = (control: number): number => (control >>> 24) & 0x1f;
/** Predicate register that a packet depends on; register 0 is always true. */
export const predicateOf = (control: number): number => control & 0x1f;
export const wregOffsetOf = (control: number): number => (control >>> 8) & 0xffff;
export const messageOperationOf = (control: number): number => (control >>> 20) & 3;
export const shortBaseOf = (control: number): number => (control >>> 22) & 3;
export const shortOffsetOf = (control: number): number => control & 0xffff;

export interface FenceFields {
  readonly id: number;
  readonly target: number;
  readonly decrement: number;
}

/** GAUDI_PKT_FENCE_CFG_*. */
export function fenceOf(configuration: number): FenceFields {
  return { id: configuration >>> 30, target: (configuration >>> 16) & 0xff, decrement: configuration & 0xf };
}

/** Packets as bytes, for tests and for people who write drivers in TypeScript. */
export const packet = {
  wreg32: (offset: number, value: number, predicate = 0) =>
    words(value, control(opcode.wreg32, (offset << 8) | predicate)),
  wregBulk: (offset: number, values: readonly number[]) =>
    words(values.length / 2, control(opcode.wregBulk, offset << 8), ...values),
  msgLong: (address: number, value: number, predicate = 0, operation = 0) =>
    words(value, control(opcode.msgLong, predicate | (operation << 20)), ...halves(address)),
  msgProt: (address: number, value: number) => words(value, control(opcode.msgProt, 0), ...halves(address)),
  msgShort: (base: number, offset: number, value: number) =>
    words(value, control(opcode.msgShort, offset | (base << 22))),
  cpDma: (address: number, lengthBytes: number) => words(lengthBytes, control(opcode.cpDma, 0), ...halves(address)),
  fence: (id: number, target: number, decrement: number) =>
    words((id << 30) | (target << 16) | decrement, control(opcode.fence, 0)),
  linDma: (source: number, destination: number, lengthBytes: number, flags: number = dmaControl.linear) =>
    words(lengthBytes, control(opcode.linDma, flags), ...halves(source), ...halves(destination)),
  memset: (patternLow: number, patternHigh: number, destination: number, lengthBytes: number, flags = 0) =>
    words(
      lengthBytes,
      control(opcode.linDma, dmaControl.linear | dmaControl.memset | flags),
      patternLow,
      patternHigh,
      ...halves(destination),
    ),
  nop: () => words(0, control(opcode.nop, 0)),
  stop: () => words(0, control(opcode.stop, 0)),
  arbPoint: (priority: number, release: boolean) =>
    words(priority | (release ? 0x80000000 : 0), control(opcode.arbPoint, 0)),
  wait: (cycles: number, id: number, increment: number) =>
    words(cycles | (increment << 24) | (id << 28), control(opcode.wait, 0)),
  loadAndExe: (address: number, configuration: number) =>
    words(configuration, control(opcode.loadAndExe, 0), ...halves(address)),
} as const;

function control(code: number, fields: number): number {
  return ((code << 24) | fields) >>> 0;
}

function halves(address: number): [number, number] {
  return [address >>> 0, Math.floor(address / 2 ** 32)];
}

function words(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(4 * values.length);
  const view = new DataView(bytes.buffer);
  values.forEach((value, index) => {
    view.setUint32(4 * index, value >>> 0, true);
  });
  return bytes;
}
