import assert from 'node:assert/strict';
import { createMemoryRegion } from '../memory/region.js';
import { type BarShape, validateBarShapes } from './bar.js';
import { type BarParts, validateBarParts } from './bar-parts.js';
import { type Capability, msix } from './capabilities.js';
import type { RegisterHandler } from './register-handler.js';

type Bar = BarShape & { readonly parts: BarParts };

const REGISTERS: RegisterHandler = { read: () => 0, write: () => undefined };
const MEMORY = createMemoryRegion('vram', 0x10000);
const OTHER = createMemoryRegion('sram', 0x10000);

const bar = (changes: Partial<Bar>): Bar => ({ index: 0, kind: 'memory64', sizeBytes: 0x10000, parts: [], ...changes });
const memory = (offset: number, sizeBytes: number, memoryOffset?: number) => ({
  offset,
  sizeBytes,
  memory: MEMORY,
  ...(memoryOffset === undefined ? {} : { memoryOffset }),
});
const registers = (offset: number, sizeBytes: number) => ({ offset, sizeBytes, registers: REGISTERS });

/** As a function is checked: its shapes when it is added, then what its model put behind them. */
function validateBars(bars: readonly Bar[], capabilities: readonly Capability[] = []): void {
  validateBarShapes(bars, capabilities);
  for (const bar of bars) validateBarParts(bar, bar.parts, capabilities);
}

describe('validateBars', () => {
  it('accepts every kind, parts in order, and MSI-X structures among registers', () => {
    const bars: readonly Bar[] = [
      bar({ prefetchable: true, parts: [memory(0, 0x4000), registers(0x4000, 0x100), memory(0x5000, 0xb000)] }),
      bar({ index: 2, kind: 'io', sizeBytes: 4, parts: [registers(0, 4)] }),
      bar({ index: 3, kind: 'memory32', sizeBytes: 2 ** 31, parts: [registers(0, 4), memory(0x8000, 0x1000, 0xf000)] }),
      bar({ index: 4, sizeBytes: 2 ** 52 }),
    ];
    const capability = msix({ vectors: 2048, tableBar: 4, tableOffset: 0, pendingBar: 4, pendingOffset: 0x8000 });
    assert.doesNotThrow(() => validateBars(bars, [capability]));
  });

  const refused: readonly [string, readonly Bar[], RegExp][] = [
    ['a size that is no power of two', [bar({ sizeBytes: 0x3000 })], /BAR 0: size 12288 is not a power of two/],
    ['size zero', [bar({ sizeBytes: 0 })], /not a power of two/],
    ['a memory BAR below 16 bytes', [bar({ sizeBytes: 8 })], /size 8 is outside 16 to/],
    [
      'a memory32 BAR of 4 GiB',
      [bar({ kind: 'memory32', sizeBytes: 2 ** 32 })],
      /outside 16 to 2147483648 bytes, the limits of kind memory32/,
    ],
    ['an I/O BAR of 512 bytes', [bar({ kind: 'io', sizeBytes: 512 })], /outside 4 to 256/],
    ['a prefetchable I/O BAR', [bar({ kind: 'io', sizeBytes: 16, prefetchable: true })], /cannot be prefetchable/],
    ['a 64-bit BAR in the last register', [bar({ index: 5 })], /BAR 5: a memory64 BAR needs the next register/],
    ['two BARs in one register', [bar({}), bar({ kind: 'memory32' })], /register 0 already belongs to BAR 0/],
    [
      'a BAR in the upper half of another',
      [bar({}), bar({ index: 1, kind: 'memory32' })],
      /BAR 1: register 1 already belongs to BAR 0/,
    ],
    ['overlapping parts', [bar({ parts: [registers(0, 0x100), registers(0x80, 4)] })], /part at 0x80 overlaps/],
    [
      'a part that is neither memory nor registers',
      [bar({ parts: [{ offset: 0x100, sizeBytes: 4 } as never] })],
      /BAR 0: part at 0x100 has neither memory nor registers/,
    ],
    [
      'a part whose memory is undefined',
      [bar({ parts: [{ offset: 0, sizeBytes: 0x1000, memory: undefined } as never] })],
      /part at 0x0 has neither memory nor registers/,
    ],
    [
      'registers that are no handler',
      [bar({ parts: [{ offset: 0, sizeBytes: 4, registers: {} } as never] })],
      /registers of the part at 0x0 have no read and write/,
    ],
    ['unsorted parts', [bar({ parts: [registers(0x100, 4), registers(0, 4)] })], /part at 0x0 overlaps or precedes/],
    ['a part beyond the end', [bar({ parts: [registers(0xfffc, 8)] })], /ends at 65540, beyond/],
    ['an empty part', [bar({ parts: [registers(0, 0)] })], /positive size/],
    [
      'registers off a dword',
      [bar({ parts: [registers(2, 4)] })],
      /registers at 2 of 4 bytes: both must be multiples of 4/,
    ],
    [
      'memory of half a page',
      [bar({ parts: [memory(0, 0x800)] })],
      /memory at 0x0: sizeBytes 2048 is not a multiple of 4096/,
    ],
    ['memory off a page', [bar({ parts: [memory(0x800, 0x1000, 0x800)] })], /offset 2048 is not a multiple/],
    [
      'memory at an odd place of its region',
      [bar({ parts: [memory(0, 0x1000, 0x10)] })],
      /memoryOffset 16 is not a multiple/,
    ],
    [
      'memory in I/O space',
      [bar({ kind: 'io', sizeBytes: 256, parts: [memory(0, 256)] })],
      /I\/O space cannot be mapped/,
    ],
    [
      'a BAR too small to map',
      [bar({ sizeBytes: 2048, parts: [memory(0, 2048)] })],
      /size 2048 cannot be mapped; make it at least 4096/,
    ],
    [
      'a region before the BAR',
      [bar({ parts: [memory(0x1000, 0x1000, 0)] })],
      /memoryOffset - offset is -4096; it must not be negative/,
    ],
    [
      'parts shifted differently',
      [bar({ parts: [memory(0, 0x1000), memory(0x2000, 0x1000, 0x3000)] })],
      /memoryOffset - offset is 4096, of an earlier part 0/,
    ],
    [
      'two regions in one BAR',
      [bar({ parts: [memory(0, 0x1000), { ...memory(0x1000, 0x1000), memory: OTHER }] })],
      /is in region sram, an earlier part in vram/,
    ],
    [
      'memory beyond its region',
      [bar({ sizeBytes: 0x20000, parts: [memory(0, 0x20000)] })],
      /ends at 131072 of region vram, which has 65536/,
    ],
  ];
  for (const [what, bars, message] of refused) {
    it(`refuses ${what}`, () => {
      assert.throws(() => validateBars(bars), message);
    });
  }

  const interrupts = (tableBar: number, tableOffset: number, pendingBar: number, pendingOffset: number) => [
    msix({ vectors: 16, tableBar, tableOffset, pendingBar, pendingOffset }),
  ];
  const mapped = [bar({ parts: [memory(0, 0x2000)] }), bar({ index: 2, kind: 'io', sizeBytes: 256 })];

  it('refuses MSI-X structures that share a page with mapped memory', () => {
    assert.doesNotThrow(() => validateBars(mapped, interrupts(0, 0x2000, 0, 0x3000)));
    assert.throws(
      () => validateBars(mapped, interrupts(0, 0x1ff8, 0, 0x3000)),
      /BAR 0: MSI-X table shares a page with memory at 0x0/,
    );
    assert.throws(() => validateBars(mapped, interrupts(0, 0x2000, 0, 0x1000)), /MSI-X pending bits shares? a page/);
  });

  it('refuses MSI-X structures without room', () => {
    assert.throws(() => validateBars(mapped, interrupts(0, 0xff08, 0, 0x3000)), /MSI-X table ends at 65544, beyond/);
    assert.throws(() => validateBars(mapped, interrupts(1, 0, 0, 0x3000)), /MSI-X table: BAR 1 is not declared/);
    assert.throws(() => validateBars(mapped, interrupts(0, 0x2000, 2, 0)), /MSI-X pending bits: BAR 2 is I\/O space/);
    assert.throws(
      () => validateBars(mapped, interrupts(0, 0x2000, 0, 0x20f8)),
      /overlap in BAR 0; move pendingOffset to 8448 or above/,
    );
  });
});
