import assert from 'node:assert/strict';
import {
  COMMAND,
  commandName,
  DEVICE_FEATURE,
  DEVICE_INFO,
  DMA_ACCESS,
  DMA_MAP,
  DMA_UNMAP,
  decodeSparseMmap,
  decodeWriteMulti,
  EMPTY,
  encodeError,
  encodeSparseMmap,
  encodeWriteMulti,
  FLAG,
  type Header,
  IRQ_INFO,
  type Layout,
  MalformedMessage,
  payloadBytes,
  REGION_ACCESS,
  REGION_INFO,
  REGION_IO_FDS,
  type RegionAccess,
  readHeader,
  readRegionAccess,
  readU64,
  SET_IRQS,
  VERSION,
  WRITE_MULTI,
  writeRegionAccess,
} from './messages.js';

interface Example {
  readonly name: string;
  readonly layout: Layout<string>;
  readonly command: number;
  readonly values: Record<string, number>;
  readonly data?: Uint8Array;
  /** The message in hex, grouped by field. */
  readonly bytes: string;
}

/** Written out by hand from vfio-user.md §1.2, not by this codec. */
const EXAMPLES: readonly Example[] = [
  {
    name: 'VERSION',
    layout: VERSION,
    command: COMMAND.VERSION,
    values: { major: 0, minor: 2 },
    data: Buffer.from('{}\0'),
    bytes: '0201 0100 17000000 00000000 00000000  0000 0200 7b7d00',
  },
  {
    name: 'DMA_MAP',
    layout: DMA_MAP,
    command: COMMAND.DMA_MAP,
    values: { argsz: 32, flags: 3, offset: 0x1000, address: 0x1_0000_0000, sizeBytes: 0x8000_0000 },
    bytes: '0201 0200 30000000 00000000 00000000  20000000 03000000 0010000000000000 0000000001000000 0000008000000000',
  },
  {
    name: 'DMA_UNMAP',
    layout: DMA_UNMAP,
    command: COMMAND.DMA_UNMAP,
    values: { argsz: 24, flags: 2, address: 0, sizeBytes: 0 },
    bytes: '0201 0300 28000000 00000000 00000000  18000000 02000000 0000000000000000 0000000000000000',
  },
  {
    name: 'DEVICE_GET_INFO',
    layout: DEVICE_INFO,
    command: COMMAND.DEVICE_GET_INFO,
    values: { argsz: 16, flags: 3, regionCount: 9, irqCount: 5 },
    bytes: '0201 0400 20000000 00000000 00000000  10000000 03000000 09000000 05000000',
  },
  {
    name: 'DEVICE_GET_REGION_INFO',
    layout: REGION_INFO,
    command: COMMAND.DEVICE_GET_REGION_INFO,
    values: { argsz: 80, flags: 15, index: 2, capabilityOffset: 32, sizeBytes: 0x8_0000_0000, offset: 0x8000 },
    bytes:
      '0201 0500 30000000 00000000 00000000  50000000 0f000000 02000000 20000000 0000000008000000 0080000000000000',
  },
  {
    name: 'DEVICE_GET_REGION_IO_FDS',
    layout: REGION_IO_FDS,
    command: COMMAND.DEVICE_GET_REGION_IO_FDS,
    values: { argsz: 16, flags: 0, index: 7, count: 0 },
    bytes: '0201 0600 20000000 00000000 00000000  10000000 00000000 07000000 00000000',
  },
  {
    name: 'DEVICE_GET_IRQ_INFO',
    layout: IRQ_INFO,
    command: COMMAND.DEVICE_GET_IRQ_INFO,
    values: { argsz: 16, flags: 7, index: 2, count: 2048 },
    bytes: '0201 0700 20000000 00000000 00000000  10000000 07000000 02000000 00080000',
  },
  {
    name: 'DEVICE_SET_IRQS with DATA_BOOL',
    layout: SET_IRQS,
    command: COMMAND.DEVICE_SET_IRQS,
    values: { argsz: 20, flags: 0x22, index: 2, start: 1, count: 2 },
    data: Uint8Array.of(0, 1),
    bytes: '0201 0800 26000000 00000000 00000000  14000000 22000000 02000000 01000000 02000000 0001',
  },
  {
    name: 'REGION_READ',
    layout: REGION_ACCESS,
    command: COMMAND.REGION_READ,
    values: { offset: 0x12_3456_7890, region: 7, count: 4 },
    bytes: '0201 0900 20000000 00000000 00000000  9078563412000000 07000000 04000000',
  },
  {
    name: 'REGION_WRITE',
    layout: REGION_ACCESS,
    command: COMMAND.REGION_WRITE,
    values: { offset: 4, region: 0, count: 2 },
    data: Uint8Array.of(0xca, 0xfe),
    bytes: '0201 0a00 22000000 00000000 00000000  0400000000000000 00000000 02000000 cafe',
  },
  {
    name: 'DMA_READ',
    layout: DMA_ACCESS,
    command: COMMAND.DMA_READ,
    values: { address: 0x1000, count: 64 },
    bytes: '0201 0b00 20000000 00000000 00000000  0010000000000000 4000000000000000',
  },
  {
    name: 'DEVICE_RESET',
    layout: EMPTY,
    command: COMMAND.DEVICE_RESET,
    values: {},
    bytes: '0201 0d00 10000000 00000000 00000000',
  },
  {
    name: 'DEVICE_FEATURE',
    layout: DEVICE_FEATURE,
    command: COMMAND.DEVICE_FEATURE,
    values: { argsz: 8, flags: 0x40001 },
    bytes: '0201 1000 18000000 00000000 00000000  08000000 01000400',
  },
];

const ID = 0x0102;

function fromHex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

/** Same seed, same numbers (xorshift32). */
function randomSource(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

describe('vfio-user messages', () => {
  for (const { name, layout, command, values, data, bytes } of EXAMPLES) {
    it(`${name}: values to bytes and back`, () => {
      const message = layout.encode(ID, command, values, data === undefined ? {} : { data });
      assert.equal(message.toString('hex'), fromHex(bytes).toString('hex'));
      assert.deepEqual(layout.decode(fromHex(bytes)), values);
    });
  }

  it('refuses whatever is shorter than its fixed part', () => {
    for (const { layout, bytes } of EXAMPLES) {
      const message = fromHex(bytes);
      for (let length = 16; length < layout.sizeBytes; length++) {
        assert.throws(() => layout.decode(message.subarray(0, length)), { name: 'MalformedMessage', errno: 22 });
      }
    }
  });

  it('an error reply is a header with flags 0x21', () => {
    const bytes = encodeError(0xffff, COMMAND.DMA_MAP, 28);
    assert.equal(bytes.toString('hex'), fromHex('ffff 0200 10000000 21000000 1c000000').toString('hex'));
    const header: Header = { id: 0, command: 0, sizeBytes: 0, flags: 0, errno: 0 };
    readHeader(bytes, 0, header);
    assert.deepEqual(header, {
      id: 0xffff,
      command: COMMAND.DMA_MAP,
      sizeBytes: 16,
      flags: FLAG.REPLY | FLAG.ERROR,
      errno: 28,
    });
  });

  it('the sparse-mmap capability', () => {
    const areas = [
      { offset: 0x2000, sizeBytes: 0x1000 },
      { offset: 0x1_0000_0000, sizeBytes: 0x2000 },
    ];
    const bytes = fromHex(
      '0100 0100 00000000 02000000 00000000 0020000000000000 0010000000000000 0000000001000000 0020000000000000',
    );
    assert.deepEqual(encodeSparseMmap(areas), bytes);
    assert.deepEqual(decodeSparseMmap(bytes), areas);
    assert.equal(payloadBytes(REGION_INFO) + bytes.length, 80);
    for (let length = 0; length < bytes.length; length++) {
      assert.throws(() => decodeSparseMmap(bytes.subarray(0, length)), MalformedMessage);
    }
  });

  it('REGION_WRITE_MULTI', () => {
    const entries = [
      { offset: 0x10, region: 1, data: Uint8Array.of(0xaa, 0xbb) },
      { offset: 0x18, region: 2, data: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8) },
    ];
    const bytes = fromHex(
      '0201 0f00 48000000 10000000 00000000  0200000000000000' +
        '1000000000000000 01000000 02000000 aabb000000000000' +
        '1800000000000000 02000000 08000000 0102030405060708',
    );
    assert.equal(encodeWriteMulti(ID, entries, FLAG.NO_REPLY).toString('hex'), bytes.toString('hex'));
    const decoded = decodeWriteMulti(bytes).map(({ data, ...rest }) => ({ ...rest, data: Uint8Array.from(data) }));
    assert.deepEqual(
      decoded,
      entries.map((entry) => ({ ...entry, count: entry.data.length })),
    );
  });

  it('region accesses without an object per message, anywhere in a buffer', () => {
    const bytes = Buffer.alloc(100);
    const wanted: RegionAccess = { offset: 2 ** 52 + 5, region: 6, count: 0xffffffff };
    writeRegionAccess(bytes, 33, wanted);
    const access: RegionAccess = { offset: 0, region: 0, count: 0 };
    readRegionAccess(bytes, 33, access);
    assert.deepEqual(access, wanted);
  });

  it('64-bit fields above 2^53 never look smaller than 2^53', () => {
    for (const hex of ['0000000000002000', 'ffffffffffffffff', '0000000000000080', '0100000000002000']) {
      assert.ok(readU64(Buffer.from(hex, 'hex'), 0) >= 2 ** 53, hex);
    }
    assert.equal(readU64(Buffer.from('ffffffffffff1f00', 'hex'), 0), 2 ** 53 - 1);
  });

  it('names commands, also those it does not know', () => {
    assert.deepEqual([9, 14, 4711].map(commandName), ['REGION_READ', 'command 14', 'command 4711']);
  });

  it('random values survive both directions', () => {
    const random = randomSource(0xc0de);
    const field = { u16: () => random() & 0xffff, u32: random, u64: () => (random() & 0x1fffff) * 2 ** 32 + random() };
    for (let i = 0; i < 2000; i++) {
      const { layout, command, values } = EXAMPLES[random() % EXAMPLES.length]!;
      const is64 = (name: string) => ['address', 'sizeBytes'].includes(name) || (name === 'offset' && layout !== EMPTY);
      const count64 = layout === DMA_ACCESS;
      const wanted = Object.fromEntries(
        Object.keys(values).map((name) => {
          if (layout === VERSION) return [name, field.u16()];
          return [name, is64(name) || (count64 && name === 'count') ? field.u64() : field.u32()];
        }),
      );
      assert.deepEqual(layout.decode(layout.encode(random() & 0xffff, command, wanted)), wanted);
    }
  });

  it('random bytes decode or are refused, and never read beyond the message', () => {
    const random = randomSource(0xbeef);
    const decoders = [...EXAMPLES.map(({ layout }) => layout.decode), decodeWriteMulti, decodeSparseMmap];
    let refused = 0;
    for (let i = 0; i < 5000; i++) {
      const message = Buffer.alloc(random() % 120);
      for (let at = 0; at < message.length; at++) message[at] = random() % 5 === 0 ? random() : 0;
      try {
        decoders[random() % decoders.length]!(message);
      } catch (error) {
        assert.ok(error instanceof MalformedMessage, `${error}`);
        refused++;
      }
    }
    assert.ok(refused > 500 && refused < 4500, `${refused} refused: the mixture tests nothing`);
  });

  it('an absurd number of writes is refused before anything is allocated', () => {
    const message = WRITE_MULTI.encode(ID, COMMAND.REGION_WRITE_MULTI, { count: 2 ** 40 });
    assert.throws(() => decodeWriteMulti(message), MalformedMessage);
  });
});
