import assert from 'node:assert/strict';
import { RecordingLog } from '../testing/index.js';
import { RegisterBlock } from './registers.js';

describe('RegisterBlock', () => {
  describe('32-bit registers', () => {
    it('holds power-on values, and a new one holds them again', () => {
      const powerOn = () =>
        new RegisterBlock(
          { name: 'mc', sizeBytes: 0x100 },
          { ID: { offset: 0, reset: 0xdeadbeef }, RING: { offset: 0x10, count: 3, strideBytes: 8, reset: 7 } },
        );
      let block = powerOn();
      assert.equal(block.read(0, 4), 0xdeadbeef);
      block.write(0, 4, 1);
      block.write(0x20, 4, 9);
      assert.equal(block.get('RING', 2), 9);
      assert.equal(block.get('RING', 1), 7);
      block = powerOn();
      assert.equal(block.read(0, 4), 0xdeadbeef);
      assert.equal(block.read(0x20, 4), 7);
    });

    it('refuses a power-on value of the wrong type, or beyond its width, by name', () => {
      const rows: [unknown, RegExp][] = [
        [
          { offset: 0, reset: 1n },
          /^Error: register mc\.ID: reset 1 is a bigint; a register of 32 bits takes a number$/,
        ],
        [{ offset: 0, reset: '1' }, /mc\.ID: reset 1 is a string/],
        [
          { offset: 0, reset: 2 ** 32 },
          /mc\.ID: reset 4294967296 is no unsigned value of 32 bits; use 0 to 0xffffffff$/,
        ],
        [{ offset: 0, reset: -1 }, /mc\.ID: reset -1 is no unsigned/],
        [{ offset: 0, reset: 0.5 }, /mc\.ID: reset 0\.5 is no unsigned/],
        [{ offset: 0, wide: true, reset: 1 }, /mc\.ID: reset 1 is a number; a register of 64 bits takes a bigint$/],
        [{ offset: 0, wide: true, reset: 1n << 64n }, /mc\.ID: reset 18446744073709551616 is no unsigned/],
      ];
      for (const [ID, message] of rows) {
        assert.throws(() => new RegisterBlock({ name: 'mc', sizeBytes: 0x100 }, { ID: ID as never }), message);
      }
    });

    it('applies write masks and clears by writing one', () => {
      const block = new RegisterBlock(
        { name: 'ih', sizeBytes: 16 },
        {
          CNTL: { offset: 0, reset: 0x80000000, writable: 0x0000ff0f },
          STATUS: { offset: 4, reset: 0xff, writable: 0xf000, writeOneToClear: 0x800000ff },
          VERSION: { offset: 8, reset: 42, writable: 0 },
        },
      );
      block.write(0, 4, 0xffffffff);
      assert.equal(block.read(0, 4), 0x8000ff0f);
      block.set('STATUS', 0x800000ff);
      block.write(4, 4, 0x8000500f);
      assert.equal(block.read(4, 4), 0x50f0);
      block.write(8, 4, 0);
      assert.equal(block.read(8, 4), 42);
    });

    it('merges narrow accesses', () => {
      const block = new RegisterBlock(
        { name: 'b', sizeBytes: 8 },
        {
          A: { offset: 0, reset: 0x11223344 },
          S: { offset: 4, reset: 0xffffffff, writable: 0, writeOneToClear: 0xffffffff },
        },
      );
      assert.deepEqual(
        [0, 1, 2, 3].map((offset) => block.read(offset, 1)),
        [0x44, 0x33, 0x22, 0x11],
      );
      assert.equal(block.read(2, 2), 0x1122);
      block.write(1, 1, 0xfff);
      assert.equal(block.get('A'), 0x1122ff44);
      block.write(2, 2, 0xabcd);
      assert.equal(block.get('A'), 0xabcdff44);
      block.write(7, 1, 0x80);
      assert.equal(block.get('S'), 0x7fffffff);
    });

    it('calls handlers with value, previous value, index and what was written', () => {
      const calls: number[][] = [];
      const block = new RegisterBlock(
        { name: 'b', sizeBytes: 0x20 },
        {
          CMD: {
            offset: 0,
            count: 2,
            strideBytes: 0x10,
            reset: 0x80,
            writable: 0xff,
            onWrite: (value, previous, index, written) => {
              calls.push([value, previous, index, written]);
            },
          },
        },
      );
      block.write(0x10, 4, 0x12345678);
      block.write(0x11, 1, 0xee);
      assert.deepEqual(calls, [
        [0x78, 0x80, 1, 0x12345678],
        [0x78, 0x78, 1, 0xee00],
      ]);
    });

    it('stores what a write handler returns, and what it sets itself', () => {
      const block: RegisterBlock<'GO' | 'DONE' | 'SELF'> = new RegisterBlock(
        { name: 'b', sizeBytes: 12 },
        {
          GO: {
            offset: 0,
            onWrite: (value) => {
              block.set('DONE', value + 1);
              return 0;
            },
          },
          DONE: { offset: 4, writable: 0 },
          SELF: { offset: 8, onWrite: () => block.set('SELF', 5) },
        },
      );
      block.write(0, 4, 6);
      assert.equal(block.read(0, 4), 0);
      assert.equal(block.read(4, 4), 7);
      block.write(8, 4, 1);
      assert.equal(block.read(8, 4), 5);
    });

    it('computes reads, as unsigned values, without changing what is stored', () => {
      const block = new RegisterBlock(
        { name: 'b', sizeBytes: 8 },
        { STATUS: { offset: 0, count: 2, reset: 1, onRead: (stored, index) => (stored << 31) | (index << 8) } },
      );
      assert.equal(block.read(4, 4), 0x80000100);
      assert.equal(block.read(5, 1), 0x01);
      assert.equal(block.get('STATUS', 1), 1);
    });

    it('gets and sets fields', () => {
      const block = new RegisterBlock(
        { name: 'b', sizeBytes: 4 },
        {
          CNTL: {
            offset: 0,
            fields: {
              ENABLE: { low: 0, high: 0 },
              SIZE: { low: 4, high: 11 },
              TOP: { low: 28, high: 31 },
              ALL: { low: 0, high: 31 },
            },
          },
        },
      );
      block.setField('CNTL', 'SIZE', 0x1ab);
      block.setField('CNTL', 'TOP', 0xc);
      block.setField('CNTL', 'ENABLE', 1);
      assert.equal(block.read(0, 4), 0xc0000ab1);
      assert.equal(block.field('CNTL', 'SIZE'), 0xab);
      assert.equal(block.field('CNTL', 'TOP'), 0xc);
      block.setField('CNTL', 'ALL', 0xffffffff);
      assert.equal(block.field('CNTL', 'ALL'), 0xffffffff);
    });
  });

  describe('64-bit accesses', () => {
    it('are two to 32-bit registers, low half first', () => {
      const order: string[] = [];
      const block = new RegisterBlock(
        { name: 'b', sizeBytes: 8 },
        {
          LO: { offset: 0, onWrite: (value) => void order.push(`lo ${value.toString(16)}`) },
          HI: { offset: 4, onWrite: (value) => void order.push(`hi ${value.toString(16)}`) },
        },
      );
      block.write64(0, 0x8899aabbccddeeffn);
      assert.deepEqual(order, ['lo ccddeeff', 'hi 8899aabb']);
      assert.equal(block.read64(0), 0x8899aabbccddeeffn);
    });

    it('are one to a wide register; halves are merged', () => {
      const calls: bigint[][] = [];
      const block = new RegisterBlock(
        { name: 'b', sizeBytes: 0x40 },
        {
          WPTR: {
            offset: 0x10,
            wide: true,
            count: 2,
            strideBytes: 16,
            reset: 0x1_00000000n,
            writable: 0xffffffff_fffffff0n,
            onRead: (stored) => stored | 1n,
            onWrite: (value, previous, index) => {
              calls.push([value, previous, BigInt(index)]);
            },
          },
          ECHO: { offset: 0x30, wide: true, onWrite: () => 3n },
        },
      );
      block.write64(0x20, 0xfedcba98_7654321fn);
      assert.equal(block.get64('WPTR', 1), 0xfedcba98_76543210n);
      assert.equal(block.read64(0x20), 0xfedcba98_76543211n);
      block.write(0x20, 4, 0xff);
      block.write(0x24, 2, 0x1111);
      assert.equal(block.read(0x20, 4), 0xf1);
      assert.equal(block.read(0x24, 4), 0xfedc1111);
      assert.deepEqual(calls, [
        [0xfedcba98_76543210n, 0x1_00000000n, 1n],
        [0xfedcba98_000000f0n, 0xfedcba98_76543210n, 1n],
        [0xfedc1111_000000f0n, 0xfedcba98_000000f0n, 1n],
      ]);
      block.write64(0x30, 77n);
      assert.equal(block.read64(0x30), 3n);
      block.set64('WPTR', 0x20n);
      assert.equal(block.read(0x10, 1), 0x21);
    });
  });

  describe('undeclared offsets', () => {
    it('are loud by default: read zero, drop writes, warn once each, count all', () => {
      const log = new RecordingLog();
      const block = new RegisterBlock({ name: 'gfx', sizeBytes: 0x1000, log }, { A: { offset: 0 } });
      block.write(0x104, 4, 5);
      assert.equal(block.read(0x104, 4), 0);
      assert.equal(block.read(0x106, 2), 0);
      assert.equal(block.read(8, 1), 0);
      assert.deepEqual(
        log.records.map(({ level, message }) => `${level}: ${message}`),
        ['warn: write of unimplemented register gfx+0x104', 'warn: read of unimplemented register gfx+0x8'],
      );
      assert.deepEqual(block.unimplemented(), [
        { offset: 0x104, reads: 2, writes: 1 },
        { offset: 8, reads: 1, writes: 0 },
      ]);
    });

    it('remember as storage, sparsely, and only debug', () => {
      const log = new RecordingLog();
      const block = new RegisterBlock(
        { name: 'cfg', sizeBytes: 128 * 1024 * 1024, log, undeclared: 'storage' },
        { LAST: { offset: 0x7fffffc, reset: 3 } },
      );
      block.write(0x7000000, 4, 0xcafef00d);
      block.write(0x7000001, 1, 0x11);
      assert.equal(block.read(0x7000000, 4), 0xcafe110d);
      assert.equal(block.read(0x7000002, 2), 0xcafe);
      assert.equal(block.read(0x7fffffc, 4), 3);
      assert.equal(block.read(0x1234, 4), 0);
      assert.deepEqual([...new Set(log.records.map(({ level }) => level))], ['debug']);
      assert.equal(block.unimplemented()[0]?.offset, 0x7000000);
    });

    it('include registers that are declared but unimplemented, which keep what is written', () => {
      const log = new RecordingLog();
      const block = new RegisterBlock(
        { name: 'gfx', sizeBytes: 8, log },
        { LATER: { offset: 4, reset: 1, unimplemented: true } },
      );
      block.write(4, 4, 9);
      assert.equal(block.read(4, 4), 9);
      assert.deepEqual(block.unimplemented(), [{ offset: 4, reads: 1, writes: 1 }]);
      assert.deepEqual(
        log.records.map(({ level, message }) => `${level}: ${message}`),
        ['warn: write of unimplemented register gfx.LATER'],
      );
    });
  });

  it('names registers for logs and tells their offsets', () => {
    const block = new RegisterBlock(
      { name: 'sdma0', sizeBytes: 0x100 },
      {
        RB_CNTL: { offset: 0x80 },
        RB_BASE: { offset: 0x90, count: 4, strideBytes: 8 },
        W: { offset: 0xc0, wide: true, count: 2 },
      },
    );
    assert.equal(block.nameAt(0x80), 'sdma0.RB_CNTL');
    assert.equal(block.nameAt(0x9a), 'sdma0.RB_BASE[1]');
    assert.equal(block.nameAt(0xcc), 'sdma0.W[1]');
    assert.equal(block.nameAt(0x94), 'sdma0+0x94');
    assert.equal(block.offsetOf('RB_BASE', 3), 0xa8);
    assert.equal(block.offsetOf('W', 1), 0xc8);
  });

  describe('refuses', () => {
    const A = { offset: 0 };
    const mistakes: readonly [string, () => unknown, RegExp][] = [
      [
        'a misaligned register',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A: { offset: 2 } }),
        /register b\.A: offset 2 is not a multiple of 4/,
      ],
      [
        'a misaligned wide register',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A: { offset: 4, wide: true } }),
        /multiple of 8/,
      ],
      [
        'a register outside',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A: { offset: 0, count: 5 } }),
        /b\.A: ends at 0x14, beyond the block's 16/,
      ],
      [
        'an overlap',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A: { offset: 0, count: 2 }, B: { offset: 4 } }),
        /b\.B: overlaps A at 0x4/,
      ],
      [
        'an overlap with the upper half of a wide one',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A: { offset: 4 }, B: { offset: 0, wide: true } }),
        /b\.B: overlaps A at 0x4/,
      ],
      [
        'a stride below the width',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A: { offset: 0, count: 2, strideBytes: 2 } }),
        /strideBytes 2/,
      ],
      [
        'an empty array',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A: { offset: 0, count: 0 } }),
        /count 0/,
      ],
      [
        'a reversed field',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A: { offset: 0, fields: { F: { low: 5, high: 4 } } } }),
        /field F has bits 5 to 4/,
      ],
      ['an empty block', () => new RegisterBlock({ name: 'b', sizeBytes: 0 }, {}), /register block b: size 0/],
      [
        'an access across dwords',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A }).read(3, 2),
        /access of 2 bytes at 3/,
      ],
      [
        'an access outside',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A }).write(16, 4, 0),
        /access of 4 bytes at 16/,
      ],
      [
        'a misaligned 8-byte access',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A }).read64(4),
        /access of 8 bytes at 4/,
      ],
      [
        'an unknown field',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A }).field('A', 'X'),
        /b\.A has no field X/,
      ],
      [
        'an unknown name',
        () => new RegisterBlock<string>({ name: 'b', sizeBytes: 16 }, { A }).get('X'),
        /block b has no register X/,
      ],
      [
        'an index beyond an array',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A }).set('A', 0, 1),
        /b\.A has elements 0 to 0, not 1/,
      ],
      [
        '64-bit use of a 32-bit register',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A }).get64('A'),
        /has 32 bits; use get and set/,
      ],
      [
        '32-bit use of a wide register',
        () => new RegisterBlock({ name: 'b', sizeBytes: 16 }, { A: { offset: 0, wide: true } }).get('A'),
        /is wide; use get64/,
      ],
    ];
    for (const [what, mistake, message] of mistakes) {
      it(what, () => {
        assert.throws(mistake, message);
      });
    }
  });
});
