import assert from 'node:assert/strict';
import { CommandCall } from '../firmware/command.js';
import { createMkeyIn } from '../layouts/commands.js';
import { mkc } from '../layouts/contexts.js';
import { type Access, AccessRefused, PageMissing, SPECIAL_KEY } from './access.js';
import { HeapBudget } from './heap-budget.js';
import type { Extent } from './keyed-memory.js';
import { MemoryKeys } from './memory-keys.js';

const MODE = { PHYSICAL: 0, MTT: 1, KLM: 2, KSM: 3 };
const PD = 7;
const requester = { number: 0x40, protectionDomain: PD, usesReservedKey: false };

describe('memory keys', () => {
  let keys: MemoryKeys;
  let budget: HeapBudget;

  beforeEach(() => {
    budget = new HeapBudget(1024 * 1024);
    keys = new MemoryKeys(budget, 100, { isDeviceMemory: () => false });
  });

  interface KeyOptions {
    readonly mode?: number;
    readonly start?: bigint;
    readonly length?: bigint;
    readonly logPage?: number;
    readonly table?: readonly bigint[];
    readonly octowords?: number;
    readonly fields?: Partial<Record<keyof typeof mkc.fields, number>>;
  }

  /** Creates a key as the driver would; its table as 64-bit words. */
  function create({
    mode = MODE.MTT,
    start = 0n,
    length = 0x10000n,
    logPage = 12,
    table = [],
    octowords = 64,
    fields = {},
  }: KeyOptions): number {
    const padded = [...table, ...(table.length % 2 === 1 ? [0n] : [])];
    const input = new DataView(new ArrayBuffer(createMkeyIn.byteOf('klm_pas_mtt') + 8 * padded.length));
    const context = createMkeyIn.part(input, 'memory_key_mkey_entry');
    mkc.fill(context, {
      access_mode_1_0: mode,
      lr: 1,
      lw: 1,
      rr: 1,
      rw: 1,
      a: 1,
      pd: PD,
      qpn: 0xffffff,
      log_page_size: logPage,
      translations_octword_size: octowords,
      mkey_7_0: 1,
      ...fields,
    });
    mkc.set64(context, 'start_addr', start);
    mkc.set64(context, 'len', length);
    createMkeyIn.set(input, 'translations_octword_actual_size', padded.length / 2);
    padded.forEach((word, index) => {
      input.setBigUint64(createMkeyIn.byteOf('klm_pas_mtt') + 8 * index, word);
    });
    const call = new CommandCall(new Uint8Array(input.buffer), 16);
    keys.commands.CREATE_MKEY!(call);
    return ((call.output.getUint32(8) & 0xffffff) << 8) | 1;
  }

  function translate(access: Partial<Access> & { key: number }): Extent[] {
    const extents: Extent[] = [];
    keys.translate(requester, { address: 0n, lengthBytes: 16, right: 'local-read', ...access }, extents);
    return extents;
  }

  it('joins pages that follow each other and splits those that do not', () => {
    const key = create({ start: 0x5800n, table: [0x1000n, 0x2000n, 0x9000n] });
    assert.deepEqual(translate({ key, address: 0x5900n, lengthBytes: 0x2000 }), [
      bus(0x1900, 0x1700),
      bus(0x9000, 0x900),
    ]);
  });

  it('takes a length of 0 for the whole address space', () => {
    const key = create({ length: 0n, logPage: 30, table: [0x4000_0000n] });
    assert.deepEqual(translate({ key, address: 7n }), [bus(0x4000_0007, 16)]);
  });

  it('counts from its start in a key without an end, as the parts of an implicit region are', () => {
    const key = create({ start: 0x7_4000_0000n, length: 0n, table: [0x1000n, 0x8000n], fields: { length64: 1 } });
    assert.deepEqual(translate({ key, address: 0x7_4000_1010n }), [bus(0x8010, 16)]);
    assert.throws(() => translate({ key, address: 0x7_3fff_ffffn }), AccessRefused);
  });

  it('takes pages of a gigabyte', () => {
    const key = create({ length: 1n << 40n, logPage: 30, table: [0n, 0x4000_0000n] });
    assert.deepEqual(translate({ key, address: (1n << 30n) + 5n }), [bus(0x4000_0005, 16)]);
  });

  for (const [what, options, access] of [
    ['a wrong variant', {}, { keyBits: 3 }],
    ['a foreign protection domain', { fields: { pd: PD + 1 } }, {}],
    ['a free key', { fields: { free: 1 } }, {}],
    ['a missing right', { fields: { rw: 0 } }, { right: 'remote-write' }],
    ['a key of another queue pair', { fields: { qpn: 0x41 } }, {}],
    ['a byte before the range', { start: 0x1000n }, { address: 0xfffn }],
    ['a byte behind the range', { length: 0x100n }, { address: 0xf1n }],
    [
      'an address that wraps',
      { start: 0x1000n, length: 0xffffffffffffffffn },
      { address: 0xffffffffffffffffn, lengthBytes: 16 },
    ],
    ['a page beyond the table', { octowords: 4, length: 1n << 40n }, { address: 0x100000n }],
  ] as const) {
    it(`refuses ${what}`, () => {
      const { keyBits = 0, ...rest } = access as { keyBits?: number } & Partial<Access>;
      const key = create({ table: [0x1000n], ...(options as KeyOptions) });
      assert.throws(() => translate({ ...rest, key: key ^ keyBits }), AccessRefused);
    });
  }

  it('follows a list of other keys, and checks only local rights there', () => {
    const inner = create({ table: [0x3000n], fields: { rr: 0 } });
    const word = (bytes: number, key: number): bigint => (BigInt(bytes) << 32n) | BigInt(key);
    const outer = create({
      mode: MODE.KLM,
      length: 0x200n,
      table: [word(0x100, inner), 0x80n, word(0x100, inner), 0n],
    });
    assert.deepEqual(translate({ key: outer, address: 0xf0n, lengthBytes: 0x20, right: 'remote-read' }), [
      bus(0x3170, 0x10),
      bus(0x3000, 0x10),
    ]);
  });

  it('leads to nothing where the null key is, alone or between others, however often', () => {
    assert.deepEqual(translate({ key: SPECIAL_KEY.NULL }), [{ kind: 'nothing', lengthBytes: 16 }]);
    const inner = create({ table: [0n] });
    const word = (bytes: number, key: number): bigint => (BigInt(bytes) << 32n) | BigInt(key);
    const table = [
      word(1, SPECIAL_KEY.NULL),
      0n,
      word(7, inner),
      0n,
      word(4, SPECIAL_KEY.NULL),
      0n,
      word(4, inner),
      8n,
    ];
    const outer = create({ mode: MODE.KLM, table });
    assert.deepEqual(translate({ key: outer }), [
      { kind: 'nothing', lengthBytes: 1 },
      bus(0, 7),
      { kind: 'nothing', lengthBytes: 4 },
      bus(8, 4),
    ]);
  });

  it('stops at keys that contain themselves', () => {
    // The first key gets index 0x1000, as the adapter hands them out.
    const own = (0x1000 << 8) | 1;
    const key = create({ mode: MODE.KLM, table: [(0x1000n << 32n) | BigInt(own), 0n] });
    assert.equal(key, own);
    assert.throws(() => translate({ key }), /nested/);
  });

  it('does not go on for ever in a list of empty pieces', () => {
    const inner = create({ table: [0x3000n] });
    const key = create({ mode: MODE.KLM, table: [BigInt(inner), 0n, BigInt(inner), 0n] });
    assert.throws(() => translate({ key }), AccessRefused);
  });

  it('does not go on for long in long lists of empty pieces inside a list', () => {
    const page = create({ table: [0x3000n] });
    const empty = [BigInt(page), 0n];
    const inner = create({
      mode: MODE.KLM,
      octowords: 40_000,
      table: [...Array.from({ length: 39_000 }, () => empty).flat(), (1n << 32n) | BigInt(page), 0n],
    });
    const one = [(1n << 32n) | BigInt(inner), 0n];
    const outer = create({ mode: MODE.KLM, table: [one, one, one, one].flat() });
    assert.deepEqual(translate({ key: outer, lengthBytes: 1 }), [bus(0x3000, 1)]);
    assert.throws(() => translate({ key: outer, lengthBytes: 4 }), /table entries/);
  });

  it('reports a missing page by the outermost key of an implicit region, with its address', () => {
    const child = create({ table: [0n, 0n], fields: { umr_en: 1 } });
    const key = create({
      mode: MODE.KSM,
      length: 1n << 32n,
      logPage: 16,
      table: [BigInt(SPECIAL_KEY.NULL), 0n, BigInt(child), 0n],
    });
    const fault = (address: bigint): PageMissing => {
      try {
        translate({ key, address });
      } catch (error) {
        if (error instanceof PageMissing) return error;
        throw error;
      }
      throw new Error('no fault');
    };
    assert.deepEqual([fault(0x100n).key, fault(0x100n).address], [key, 0x100n]);
    assert.deepEqual([fault(0x10100n).key, fault(0x10100n).address], [key, 0x10100n]);
  });

  it('faults beyond the table of a key that can fault', () => {
    const key = create({ octowords: 4, length: 1n << 40n, fields: { umr_en: 1 } });
    assert.throws(() => translate({ key, address: 0x100000n }), PageMissing);
  });

  it('asks for a page that may be read but not written', () => {
    const key = create({ table: [0x1001n], fields: { umr_en: 1 } });
    assert.deepEqual(translate({ key }), [bus(0x1000, 16)]);
    assert.throws(() => translate({ key, right: 'local-write' }), PageMissing);
  });

  it('keeps the heap that tables take within its budget', () => {
    const key = keys.findIndex(create({ octowords: 1 << 20 }) >>> 8)!;
    assert.equal(key.writeTable(0, new Uint8Array(512 * 1024)), true);
    assert.equal(key.writeTable(512 * 1024, new Uint8Array(1024 * 1024)), false, 'more than the budget');
    assert.equal(key.writeTable(16 << 20, new Uint8Array(16)), false, 'beyond the capacity');
    key.release();
    assert.equal(budget.usedBytes, 0);
  });
});

function bus(address: number, lengthBytes: number): Extent {
  return { kind: 'bus', address, lengthBytes };
}
