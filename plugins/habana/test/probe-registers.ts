/**
 * How often the stock driver of Debian's 7.2.12 read and wrote every register in one probe, recorded with all of BAR2
 * trapped. It is the driver's doing, so 6.12 and 7.3 with the same source do the same.
 *
 * A line is the pages (cfg offset / 4096) whose registers had the same accesses, and their offsets in the page:
 * `024-034x2` means each dword from 0x24 to 0x34, twice.
 */
type Recording = readonly (readonly [pages: string, offsets: string])[];

const readRecording: Recording = [
  ['20 a0 120 1a0', '038x2'],
  ['40 c0 140 1c0', '034-038x2'],
  ['68 168 508 528 548 568 588 5a8 5c8 5e8 e08 e48 e88 ec8 f08 f48 f88 fc8', '024-034x2'],
  ['442', '230'],
  ['500', '0f4x2 164x2'],
  ['520 540 560 580 5a0 5c0 5e0', '0f4x2'],
  ['c01', 'b48'],
  ['c12', '000x2'],
  ['c4b', '100x3 150-154x4 15c 160-164x3 170-174 300x4 338-33cx2'],
  ['c70', '100-108 208 288'],
  ['e06 e46 e86 ec6 f06 f46 f86 fc6', '91cx2 954 964x2 96cx2 9b8'],
];

const writeRecording: Recording = [
  ['20 a0 120 1a0', '038x2 050 f80-ffc'],
  ['40 c0 140 1c0', '034-038x2 050 f80-ffc'],
  ['41 c1 141 1c1 4a7 4a8 4a9 4c7 4c8 4c9 4e7 4e8 4e9 e07 e47 e87 ec7 f07 f47 f87 fc7', 'f80-ffc'],
  ['60 e0 160 1e0', '294 f94 fa0 ffc'],
  [
    '68 168 548 568 588 5c8 5e8 e08 e48 e88 ec8 f08 f48 fc8',
    '000-00c 024-034x2 070-0bc 228-274 2c8-2d8 2e0-304 b38 ba0 c70 c78 cd0-cd8 f80-f9c fa0x2 fd0-fe8 ffc',
  ],
  ['300 310 320 330 340 350 360 370 380 390 3a0 3b0 3c0 3d0 3e0 3f0', '400 410-434 450-474 490 4a0-4c4 4e0-504'],
  [
    '306 316 326 336 346 356 366 376 386 396 3a6 3b6 3c6 3d6 3e6 3f6 481 482',
    '26c 284 2ec-2f8 41c-420 5e4-5f4 624-634 664-674 6a4-6b4 824 82c-834 864 86c-874 8a4 8ac-8b4 8e4 8ec-8f4 a64-a68',
  ],
  ['442', '12c 200x6 204-218 220-230'],
  [
    '480',
    '000-00c 050-054 100-124 140-164 180-1a4 1c0-1e4 300-324 340-364 380-3a4 3c0-3e4 500-524 540-564 580-5a4 5c0-5e4 700-704 71c-720 730-734',
  ],
  ['492', '000-028 040-068 080-0a8 0c0-0e8 100-128 140-168 180-1a8 1c0-1e8'],
  [
    '4a0 4c0 4e0',
    '000-00c 050-054 100-124 140-164 180-1a4 1c0-1e4 300-324 340-364 380-3a4 3c0-3e4 500-524 540-564 580-5a4 5c0-5e4 700-704 71c-720 730-734 f80-ffc',
  ],
  [
    '4a1 4a2 4c1 4c2 4e1 4e2',
    '26c 284 2ec-2f8 41c-420 5e4-5f4 624-634 664-674 6a4-6b4 824 82c-834 864 86c-874 8a4 8ac-8b4 8e4 8ec-8f4 a64-a68 f80-ffc',
  ],
  ['500', '000 008 0b8x5 0f0 0f4x2 100-104 160 170-178 f80-f90 ffc'],
  [
    '508',
    '000-00c 024-034x2 070-09c 0a0x4 0a4-0acx2 0b0-0bc 228-234 23c-248 250-25c 264-270 278-284 28c-298 2a0-2ac 2b4-2c0 2c8-2d4 2e0-2ec 2f4-300 3f4-400 b38 ba0 c70 c78 cd0-cd8 f80-f9c fa0x2 fd0-fe8 ffc',
  ],
  ['520 540 560 580 5a0 5c0 5e0', '000 008 0b8 0f0 0f4x2 100-104 160 170-178 f80-f90 ffc'],
  [
    '528',
    '000-00c 024-034x2 070-09c 0a0-0acx2 0b0-0bc 228-234 23c-248 250-25c 264-270 278-284 28c-298 2a0-2ac 2b4-2c0 2c8-2d4 2e0-2ec 2f4-300 3f4-400 b38 ba0 c70 c78 cd0-cd8 f80-f9c fa0x2 fd0-fe8 ffc',
  ],
  ['5a8 f88', '000-00c 024-034x2 070-0bc 228-2d8 2e0-304 b38 ba0 c70 c78 cd0-cd8 f80-f9c fa0x2 fd0-fe8 ffc'],
  ['800', '040x7'],
  ['c01', 'b28 b48'],
  ['c11', '00c 02c'],
  ['c12', '000-00cx2 014-018 024 050'],
  ['c49', '000x2 008-00c'],
  ['c4b', '100 15c 304x4 338-33cx2'],
  ['ce0 ce2 d20 d22 d60 d62 da0 da2 de0 de2', 'f80-f9c fa0x2 fd0-fe8 ffc'],
  ['e06 e46 e86 ec6 f06 f46 f86 fc6', '92c-930 938 940-944 954 95c 964x2 96cx2 990-994 d84-d8c fc4-fcc ffc'],
];

/** Accesses by cfg offset. */
export const probeReads = counts(readRecording);
export const probeWrites = counts(writeRecording);

function counts(recording: Recording): ReadonlyMap<number, number> {
  const found = new Map<number, number>();
  for (const [pages, offsets] of recording) {
    for (const page of pages.split(' ')) {
      for (const run of offsets.split(' ')) addRun(found, Number.parseInt(page, 16) * 4096, run);
    }
  }
  return found;
}

function addRun(found: Map<number, number>, base: number, run: string): void {
  const [range = '', times = '1'] = run.split('x');
  const [first = 0, last = first] = range.split('-').map((offset) => Number.parseInt(offset, 16));
  for (let offset = first; offset <= last; offset += 4) found.set(base + offset, Number(times));
}
