import assert from 'node:assert/strict';
import { createMemoryRegion, type MemoryRegion } from '../memory/region.js';
import { BarDecoder } from './bar-decoder.js';
import type { RegisterHandler } from './register-handler.js';

/** Remembers every access; reads answer with the bytes of their own offset. */
class Recorder implements RegisterHandler {
  readonly accesses: string[] = [];

  read(offset: number, sizeBytes: number): number {
    this.accesses.push(`read ${offset} ${sizeBytes}`);
    let value = 0;
    for (let index = 0; index < sizeBytes; index++) value += ((offset + index) & 0xff) * 256 ** index;
    return value;
  }

  write(offset: number, sizeBytes: number, value: number): void {
    this.accesses.push(`write ${offset} ${sizeBytes} ${value.toString(16)}`);
  }
}

class WideRecorder extends Recorder {
  read64(offset: number): bigint {
    this.accesses.push(`read ${offset} 8`);
    return 0xf7e6d5c4b3a29180n;
  }

  write64(offset: number, value: bigint): void {
    this.accesses.push(`write ${offset} 8 ${value.toString(16)}`);
  }
}

function bytesOf(memory: MemoryRegion, offset: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  memory.read(offset, bytes);
  return bytes;
}

function make(registers: RegisterHandler = new Recorder()) {
  const memory = createMemoryRegion('vram', 0x8000);
  const parts = [
    { offset: 0x0, sizeBytes: 0x1000, memory, memoryOffset: 0x2000 },
    { offset: 0x1000, sizeBytes: 0x104, registers },
    { offset: 0x4000, sizeBytes: 0x2000, memory, memoryOffset: 0x6000 },
  ];
  return { memory, decoder: new BarDecoder(0x10000, parts) };
}

function read(decoder: BarDecoder, offset: number, lengthBytes: number): number[] {
  const target = new Uint8Array(lengthBytes).fill(0x55);
  decoder.read(offset, target);
  return [...target];
}

describe('BarDecoder', () => {
  it('copies memory at its place in the region', () => {
    const { memory, decoder } = make();
    decoder.write(0x4010, Uint8Array.of(1, 2, 3));
    assert.deepEqual([...bytesOf(memory, 0x6010, 3)], [1, 2, 3]);
    memory.write(0x2ffe, Uint8Array.of(9));
    assert.deepEqual(read(decoder, 0xffd, 3), [0, 9, 0]);
  });

  const splits: readonly [number, number, readonly string[]][] = [
    [0x1000, 1, ['0 1']],
    [0x1002, 2, ['2 2']],
    [0x1004, 4, ['4 4']],
    [0x1008, 8, ['8 8']],
    [0x1004, 8, ['4 4', '8 4']],
    [0x1001, 4, ['1 1', '2 2', '4 1']],
    [0x1003, 16, ['3 1', '4 4', '8 8', '16 2', '18 1']],
    [0x1000, 20, ['0 8', '8 8', '16 4']],
    [0x10fc, 8, ['252 4', '256 4']],
  ];
  for (const [offset, lengthBytes, accesses] of splits) {
    it(`splits ${lengthBytes} bytes at 0x${offset.toString(16)} into ${accesses.join(', ')}`, () => {
      const registers = new WideRecorder();
      const { decoder } = make(registers);
      read(decoder, offset, lengthBytes);
      assert.deepEqual(
        registers.accesses,
        accesses.map((access) => `read ${access}`),
      );
      registers.accesses.length = 0;
      decoder.write(offset, new Uint8Array(lengthBytes));
      assert.deepEqual(
        registers.accesses,
        accesses.map((access) => `write ${access} 0`),
      );
    });
  }

  it('keeps byte order', () => {
    const { decoder } = make();
    assert.deepEqual(
      read(decoder, 0x1003, 9),
      Array.from({ length: 9 }, (_, index) => 3 + index),
    );
    const registers = new WideRecorder();
    const wide = make(registers).decoder;
    assert.deepEqual(read(wide, 0x1008, 8), [0x80, 0x91, 0xa2, 0xb3, 0xc4, 0xd5, 0xe6, 0xf7]);
    registers.accesses.length = 0;
    wide.write(0x1007, Uint8Array.of(0x11, 0x80, 0x91, 0xa2, 0xb3, 0xc4, 0xd5, 0xe6, 0xf7, 0xfe, 0xff));
    assert.deepEqual(registers.accesses, ['write 7 1 11', 'write 8 8 f7e6d5c4b3a29180', 'write 16 2 fffe']);
  });

  it('gives a handler without 64-bit accesses two halves, lower address first', () => {
    const registers = new Recorder();
    const { decoder } = make(registers);
    decoder.write(0x1010, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 0x88));
    assert.deepEqual(registers.accesses, ['write 16 4 4030201', 'write 20 4 88070605']);
    assert.deepEqual(read(decoder, 0x1010, 8), [16, 17, 18, 19, 20, 21, 22, 23]);
  });

  it('takes one range through memory, registers and unaddressed space', () => {
    const registers = new Recorder();
    const { memory, decoder } = make(registers);
    memory.fill(0x2ffc, 0xaa, 4);
    assert.deepEqual(read(decoder, 0xffc, 8), [0xaa, 0xaa, 0xaa, 0xaa, 0, 1, 2, 3]);
    assert.deepEqual(read(decoder, 0x1100, 8), [0, 1, 2, 3, 0, 0, 0, 0]);
    decoder.write(0x3ffe, Uint8Array.of(1, 2, 3, 4));
    assert.deepEqual([...bytesOf(memory, 0x6000, 2)], [3, 4]);
    assert.deepEqual(registers.accesses, ['read 0 4', 'read 256 4']);
    assert.deepEqual(decoder.unaddressed(), [
      { offset: 0x1104, reads: 1, writes: 0 },
      { offset: 0x3ffe, reads: 0, writes: 1 },
    ]);
  });

  it('reads unaddressed space as zero and counts most used first', () => {
    const { decoder } = make();
    assert.deepEqual(read(decoder, 0x8000, 4), [0, 0, 0, 0]);
    decoder.write(0xfffc, Uint8Array.of(1, 2, 3, 4));
    decoder.write(0xfffc, Uint8Array.of(1, 2, 3, 4));
    assert.deepEqual(read(decoder, 0xfffc, 4), [0, 0, 0, 0]);
    assert.deepEqual(decoder.unaddressed(), [
      { offset: 0xfffc, reads: 1, writes: 2 },
      { offset: 0x8000, reads: 1, writes: 0 },
    ]);
  });

  it('tells what lies at an offset, up to the end of its part', () => {
    const registers = new Recorder();
    const { memory, decoder } = make(registers);
    assert.deepEqual(decoder.spanAt(0x10), { kind: 'memory', memory, memoryOffset: 0x2010, lengthBytes: 0xff0 });
    assert.deepEqual(decoder.spanAt(0x1100), { kind: 'registers', registers, registerOffset: 0x100, lengthBytes: 4 });
    assert.deepEqual(decoder.spanAt(0x1104), { kind: 'unaddressed', lengthBytes: 0x2efc });
    assert.deepEqual(decoder.spanAt(0x5fff), { kind: 'memory', memory, memoryOffset: 0x7fff, lengthBytes: 1 });
    assert.deepEqual(decoder.spanAt(0x6000), { kind: 'unaddressed', lengthBytes: 0xa000 });
  });

  it('names what is at an offset', () => {
    const { decoder } = make({ read: () => 0, write: () => undefined, nameAt: (offset) => `block.REG${offset}` });
    assert.equal(decoder.nameAt(0x1004), 'block.REG4');
    assert.equal(make().decoder.nameAt(0x1004), 'registers+0x4');
    assert.equal(decoder.nameAt(0x4000), 'vram+0x6000');
    assert.equal(decoder.nameAt(0x8000), 'unaddressed+0x8000');
  });

  it('refuses ranges outside the BAR', () => {
    const { decoder } = make();
    assert.throws(
      () => decoder.read(0xfffd, new Uint8Array(4)),
      /BAR read of 4 bytes at 65533: outside its 65536 bytes/,
    );
    assert.throws(() => decoder.write(-1, new Uint8Array(1)), RangeError);
  });

  it('lets an exception of a handler pass', () => {
    const { decoder } = make({
      read: () => {
        throw new Error('engine is on fire');
      },
      write: () => undefined,
    });
    assert.throws(() => decoder.read(0x1000, new Uint8Array(4)), /engine is on fire/);
  });
});
