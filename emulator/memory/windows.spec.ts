import assert from 'node:assert/strict';
import type { MemoryRegion } from './region.js';
import { type BarWindow, buildSegments, segmentIndexAtOrBelow } from './windows.js';

const memory = { name: 'vram' } as MemoryRegion;

function window(
  address: number,
  sizeBytes: number,
  parts: [offset: number, sizeBytes: number, memoryOffset?: number][] = [],
) {
  const memoryParts = parts.map(([offset, size, memoryOffset]) => ({
    offset,
    sizeBytes: size,
    memory,
    ...(memoryOffset === undefined ? {} : { memoryOffset }),
  }));
  return { address, bar: { sizeBytes, memoryParts, read: () => {}, write: () => {} } } satisfies BarWindow;
}

function table(...owners: [string, BarWindow[]][]): string[] {
  return buildSegments(owners.map(([owner, windows]) => ({ owner, windows }))).map((segment) => {
    const offset = segment.kind === 'peer-memory' ? `memory ${segment.memoryOffset}` : `registers ${segment.barOffset}`;
    return `${segment.owner} ${segment.start}-${segment.end} ${offset}`;
  });
}

describe('window table', () => {
  it('splits a BAR into its memory and everything else, which traps', () => {
    assert.deepEqual(
      table([
        'gpu0',
        [
          window(1000, 100, [
            [10, 20],
            [30, 10, 500],
            [60, 40],
          ]),
        ],
      ]),
      [
        'gpu0 1000-1010 registers 0',
        'gpu0 1010-1030 memory 10',
        'gpu0 1030-1040 memory 500',
        'gpu0 1040-1060 registers 40',
        'gpu0 1060-1100 memory 60',
      ],
    );
  });

  it('sorts the windows of all functions', () => {
    assert.deepEqual(table(['a', [window(3000, 10), window(1000, 10)]], ['b', [window(2000, 10)]]), [
      'a 1000-1010 registers 0',
      'b 2000-2010 registers 0',
      'a 3000-3010 registers 0',
    ]);
  });

  it('gives an overlap to the window below, and what is left to the other', () => {
    assert.deepEqual(
      table(['a', [window(1000, 100)]], ['b', [window(1050, 100, [[20, 80]])]], ['c', [window(1010, 20)]]),
      ['a 1000-1100 registers 0', 'b 1100-1150 memory 50'],
    );
    assert.deepEqual(table(['a', [window(1000, 10)]], ['b', [window(1000, 20)]]), [
      'a 1000-1010 registers 0',
      'b 1010-1020 registers 10',
    ]);
  });

  it('finds the last segment at or below an address', () => {
    const segments = buildSegments([{ owner: 'a', windows: [window(1000, 10), window(2000, 10)] }]);
    const found = [999, 1000, 1999, 2000, 2 ** 52].map((address) => segmentIndexAtOrBelow(segments, address));
    assert.deepEqual(found, [-1, 0, 0, 1, 1]);
    assert.equal(segmentIndexAtOrBelow([], 5), -1);
  });
});
