import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, readSync, writeSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { closeFd, openFdCount } from './fd.js';
import { addressOf } from './libc.js';
import { MappedFile, mapShared, WINDOW_BYTES, WINDOW_LIMIT_BYTES } from './mapping.js';
import { allocatedBytes, createMemfd } from './memfd.js';
import { socketPair } from './socket.js';

const TIB = 2 ** 40;
const PAGE = 4096;

function withMemfd(sizeBytes: number, test: (fd: number) => void): void {
  const fd = createMemfd('test', sizeBytes);
  try {
    test(fd);
  } finally {
    closeFd(fd);
  }
}

function withFile(sizeBytes: number, test: (file: MappedFile, fd: number) => void): void {
  withMemfd(sizeBytes, (fd) => {
    const file = new MappedFile(fd, sizeBytes, { writable: true });
    try {
      test(file, fd);
    } finally {
      file.close();
    }
  });
}

function fileBytes(fd: number, offset: number, length: number): number[] {
  const bytes = Buffer.alloc(length);
  readSync(fd, bytes, 0, length, offset);
  return [...bytes];
}

/** The mapping that contains an address, as a line of /proc/self/maps. */
function mapsLine(address: number): string | undefined {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .find((line) => {
      const [from, to] = line
        .split(' ')[0]!
        .split('-')
        .map((part) => Number.parseInt(part, 16));
      return address >= from! && address < to!;
    });
}

/** Where in its file FENCE_WRITER stores what. */
const FENCE = { word: 0, long: 8, started: 64, finished: 128 };

/** Writes all ones and zero in turn, few enough times that V8 has not optimized the stores for most of them. */
const FENCE_WRITER = `
  const { module, fd } = require('node:worker_threads').workerData;
  import(module).then((host) => {
    const file = new host.MappedFile(fd, 4096, { writable: true });
    file.writeU32(${FENCE.started}, 1);
    for (let round = 0; round < 20000; round++) {
      file.writeU32(${FENCE.word}, round % 2 === 0 ? 0xffffffff : 0);
      file.writeU64(${FENCE.long}, round % 2 === 0 ? 0xffffffffffffffffn : 0n);
    }
    file.writeU32(${FENCE.finished}, 1);
    file.close();
  });
`;

describe('mapShared', () => {
  it('shares memory between two mappings and the file', () => {
    withMemfd(4 * PAGE, (fd) => {
      const whole = mapShared(fd, 0, 4 * PAGE, { writable: true });
      const part = mapShared(fd, PAGE, PAGE, { writable: true });
      part.bytes[3] = 0x5a;
      assert.equal(whole.bytes[PAGE + 3], 0x5a);
      assert.deepEqual(fileBytes(fd, PAGE + 3, 1), [0x5a]);
      assert.equal(whole.lengthBytes, 4 * PAGE);
      assert.equal(whole.bytes.length, 4 * PAGE);
      for (const mapping of [whole, part]) mapping.unmap();
    });
  });

  it('lets go of the file at once; a view that was kept reads zeros and writes nowhere', () => {
    withMemfd(PAGE, (fd) => {
      const mapping = mapShared(fd, 0, PAGE, { writable: true });
      const kept = mapping.bytes.subarray(8, 16);
      kept[0] = 1;
      mapping.unmap();
      mapping.unmap();
      assert.doesNotMatch(mapsLine(addressOf(mapping.bytes)) ?? '', /memfd/);
      assert.equal(kept[0], 0);
      kept[0] = 2;
      assert.deepEqual(fileBytes(fd, 8, 1), [1]);
    });
  });

  it('gives addresses back when the last view has been collected', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const lengthBytes = 0x3000_0000;
    const fd = createMemfd('collected', lengthBytes);
    const unmapped = (() => {
      const mapping = mapShared(fd, 0, lengthBytes, { writable: true });
      mapping.unmap();
      return addressOf(mapping.bytes);
    })();
    const forgotten = addressOf(mapShared(fd, 0, lengthBytes, { writable: true }).bytes);
    assert.match(mapsLine(forgotten)!, /memfd:collected/);
    // Something smaller may move in once a range is free, so both ends are looked at.
    const isMapped = (address: number) => {
      const line = mapsLine(address);
      return line !== undefined && line === mapsLine(address + lengthBytes - 1);
    };
    for (let turns = 0; isMapped(unmapped) || isMapped(forgotten); turns++) {
      assert.ok(turns < 1000, 'never given back');
      collect();
      await new Promise((resolve) => setImmediate(resolve));
    }
    closeFd(fd);
  });

  it('protects the file, not the process, from writes to a read-only mapping', () => {
    withMemfd(2 * PAGE, (fd) => {
      const mapping = mapShared(fd, 0, 2 * PAGE, { writable: false });
      writeSync(fd, Buffer.from([7]), 0, 1, PAGE);
      assert.equal(mapping.bytes[PAGE], 7);
      mapping.bytes[0] = 9;
      assert.deepEqual(fileBytes(fd, 0, 1), [0]);
      mapping.unmap();
    });
  });

  it('refuses what would abort or kill the process', () => {
    withMemfd(8 * 2 ** 30, (fd) => {
      assert.throws(() => mapShared(fd, 0, WINDOW_LIMIT_BYTES + 1, { writable: true }), /use MappedFile for more/);
      assert.throws(() => mapShared(fd, 0, 0, { writable: true }), RangeError);
      assert.throws(() => mapShared(fd, 1, PAGE, { writable: true }), /offset 1: it must be a multiple of 4096/);
      assert.throws(() => mapShared(fd, 8 * 2 ** 30, PAGE, { writable: true }), /the file has 8589934592 bytes/);
      const largest = mapShared(fd, 0, WINDOW_LIMIT_BYTES, { writable: true });
      largest.bytes[WINDOW_LIMIT_BYTES - 1] = 1;
      largest.unmap();
    });
    const [a, b] = socketPair();
    assert.throws(() => mapShared(a, 0, PAGE, { writable: true }), /mapping fd \d+ failed: ENODEV/);
    for (const fd of [a, b]) closeFd(fd);
  });
});

describe('MappedFile', () => {
  it('reaches every part of many TiB and touches only what is used', () => {
    withFile(16 * TIB, (file, fd) => {
      for (const offset of [0, 5 * TIB + 12, 16 * TIB - 8]) {
        file.writeU64(offset, BigInt(offset) + 1n);
        assert.equal(file.readU64(offset), BigInt(offset) + 1n);
        assert.equal(Buffer.from(fileBytes(fd, offset, 8)).readBigUInt64LE(), BigInt(offset) + 1n);
      }
      assert.ok(allocatedBytes(fd) <= 3 * 2 ** 21);
    });
  });

  it('reads and writes across a window boundary', () => {
    withFile(WINDOW_BYTES + PAGE, (file, fd) => {
      for (let before = 1; before <= 7; before++) {
        const offset = WINDOW_BYTES - before;
        file.writeU64(offset, 0x8877_6655_4433_2211n);
        assert.deepEqual(fileBytes(fd, offset, 8), [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
        assert.equal(file.readU64(offset), 0x8877_6655_4433_2211n);
        file.writeU32(offset, 0xdead_beef);
        assert.equal(file.readU32(offset), 0xdead_beef);
      }
      const source = Uint8Array.from({ length: 100 }, (_, i) => i + 1);
      file.write(WINDOW_BYTES - 37, source);
      const target = new Uint8Array(100);
      file.read(WINDOW_BYTES - 37, target);
      assert.deepEqual(target, source);
      assert.deepEqual(fileBytes(fd, WINDOW_BYTES - 37, 100), [...source]);
    });
  });

  it('hands out spans that end at the window, the file, or the length asked for', () => {
    withFile(WINDOW_BYTES + 100, (file) => {
      assert.equal(file.span(0, 10).length, 10);
      assert.equal(file.span(WINDOW_BYTES - 3, 10).length, 3);
      assert.equal(file.span(WINDOW_BYTES + 90, 50).length, 10);
      const pieces: number[][] = [];
      file.forEachSpan(WINDOW_BYTES - 3, 10, (bytes, at) => pieces.push([at, bytes.length]));
      assert.deepEqual(pieces, [
        [0, 3],
        [3, 7],
      ]);
      file.span(WINDOW_BYTES + 5, 1)[0] = 77;
      assert.equal(file.readU32(WINDOW_BYTES + 5), 77);
    });
  });

  it('checks every bound, with the values in the message', () => {
    withFile(WINDOW_BYTES + 10, (file) => {
      const end = WINDOW_BYTES + 10;
      const refused = [
        () => file.readU32(end - 3),
        () => file.readU64(-1),
        () => file.readU32(Number.NaN),
        () => file.writeU32(end, 0),
        () => file.writeU64(end - 7, 0n),
        () => file.read(end - 1, new Uint8Array(2)),
        () => file.write(2 ** 60, new Uint8Array(1)),
        () => file.span(end, 1),
        () => file.forEachSpan(0, end + 1, () => assert.fail('called')),
      ];
      for (const attempt of refused) assert.throws(attempt, RangeError);
      file.readU32(end - 4);
      // Once more with the last window as the current one, where the quick path decides.
      for (const attempt of refused) assert.throws(attempt, RangeError);
      assert.throws(
        () => file.readU32(end - 3),
        /access of 4 bytes at offset 1073741831 is outside the 1073741834 bytes/,
      );
      file.read(end, new Uint8Array(0));
    });
  });

  it('refuses a file that is shorter than said, and descriptors that are no file', () => {
    withMemfd(PAGE, (fd) => {
      assert.throws(() => new MappedFile(fd, PAGE + 1, { writable: true }), /the file has 4096 bytes/);
      assert.throws(() => new MappedFile(fd, 0, { writable: true }), RangeError);
    });
    assert.throws(() => new MappedFile(9999, PAGE, { writable: true }), /EBADF/);
  });

  it('writes nothing when read-only', () => {
    withMemfd(PAGE, (fd) => {
      const file = new MappedFile(fd, PAGE, { writable: false });
      const attempts = [() => file.writeU32(0, 1), () => file.writeU64(0, 1n), () => file.write(0, new Uint8Array(1))];
      for (const attempt of attempts) assert.throws(attempt, /mapped read-only/);
      assert.equal(file.readU32(0), 0);
      file.close();
    });
  });

  it('keeps a descriptor of its own, and after close() nothing of it is left', () => {
    const before = openFdCount();
    const fd = createMemfd('closing', WINDOW_BYTES + PAGE);
    const file = new MappedFile(fd, WINDOW_BYTES + PAGE, { writable: true });
    closeFd(fd);
    file.writeU32(WINDOW_BYTES, 5);
    const kept = file.span(WINDOW_BYTES, 4);
    file.close();
    file.close();
    assert.equal(openFdCount(), before);
    assert.deepEqual([...kept], [0, 0, 0, 0]);
    assert.doesNotMatch(readFileSync('/proc/self/maps', 'utf8'), /memfd:closing/);
    for (const attempt of [() => file.readU32(WINDOW_BYTES), () => file.writeU64(0, 1n), () => file.span(0, 1)]) {
      assert.throws(attempt, /has been closed/);
    }
  });

  it('stores aligned words and longs whole, as another thread sees them', async () => {
    const fd = createMemfd('fence', 4096);
    const file = new MappedFile(fd, 4096, { writable: true });
    const workerData = { module: new URL('./index.js', import.meta.url).href, fd };
    const worker = new Worker(FENCE_WRITER, { eval: true, workerData });
    const exited = once(worker, 'exit');
    const torn: (number | bigint)[] = [];
    while (file.readU32(FENCE.started) === 0) await new Promise((resolve) => setImmediate(resolve));
    while (file.readU32(FENCE.finished) === 0) {
      const word = file.readU32(FENCE.word);
      const long = file.readU64(FENCE.long);
      if (word !== 0 && word !== 0xffffffff) torn.push(word);
      if (long !== 0n && long !== 0xffffffffffffffffn) torn.push(long);
    }
    await exited;
    file.close();
    closeFd(fd);
    assert.deepEqual(torn, []);
  });
});
