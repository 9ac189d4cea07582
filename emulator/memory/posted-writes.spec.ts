import assert from 'node:assert/strict';
import { countAlignedPieces, forEachAlignedPiece, POSTED_LIMIT_BYTES, PostedWrites } from './posted-writes.js';
import type { FabricBar } from './windows.js';

function recordingBar(log: string[], onWrite: (offset: number) => void = () => {}): FabricBar {
  return {
    sizeBytes: 2 ** 20,
    memoryParts: [],
    read: (offset, target) => {
      log.push(`read ${offset}+${target.length}`);
      target.fill(0x11);
    },
    write: (offset, source) => {
      log.push(`write ${offset}=${Buffer.from(source).toString('hex')}`);
      onWrite(offset);
    },
  };
}

describe('posted register writes', () => {
  let scheduled: (() => void)[];
  let writes: PostedWrites;
  let log: string[];
  let bar: FabricBar;

  beforeEach(() => {
    scheduled = [];
    writes = new PostedWrites((drain) => scheduled.push(drain));
    log = [];
    bar = recordingBar(log);
  });

  const runScheduled = () => {
    for (const drain of scheduled.splice(0)) drain();
  };

  it('wait until the schedule runs, then go in order, from copies', () => {
    const bytes = Uint8Array.of(1, 2, 3, 4);
    writes.post(bar, 8, bytes);
    bytes.fill(0xff);
    writes.post(bar, 4, Uint8Array.of(5));
    assert.deepEqual(log, []);
    assert.equal(scheduled.length, 1, 'one turn for all that wait');
    runScheduled();
    assert.deepEqual(log, ['write 8=01020304', 'write 4=05']);
  });

  it('go before a read', () => {
    writes.post(bar, 0, Uint8Array.of(7));
    const target = new Uint8Array(4);
    assert.equal(writes.read(bar, 16, target), true);
    assert.deepEqual(log, ['write 0=07', 'read 16+4']);
    assert.deepEqual(target, new Uint8Array(4).fill(0x11));
    runScheduled();
    assert.equal(log.length, 2);
  });

  it('arrive naturally aligned, at most 8 bytes wide', () => {
    const pieces: [number, number][] = [];
    const bytes = Uint8Array.from({ length: 22 }, (_, index) => index);
    const count = forEachAlignedPiece(0x1003, bytes, (offset, piece) => {
      assert.equal(piece[0], offset - 0x1003);
      pieces.push([offset, piece.length]);
    });
    assert.deepEqual(pieces, [
      [0x1003, 1],
      [0x1004, 4],
      [0x1008, 8],
      [0x1010, 8],
      [0x1018, 1],
    ]);
    assert.equal(count, 5);
    assert.equal(countAlignedPieces(0x1003, 22), 5);
  });

  it('posted by the handler of one wait for their own turn', () => {
    const again = recordingBar(log, (offset) => {
      if (offset < 3) writes.post(again, offset + 1, Uint8Array.of(0));
    });
    writes.post(again, 0, Uint8Array.of(0));
    for (let turn = 1; turn <= 4; turn++) {
      runScheduled();
      assert.equal(log.length, turn);
    }
    assert.deepEqual(scheduled, []);
  });

  it('cannot re-enter the function by a read from inside its handler', () => {
    let refused: boolean | undefined;
    const nosy = recordingBar(log, () => {
      refused = !writes.read(nosy, 0, new Uint8Array(4));
    });
    writes.post(nosy, 0, Uint8Array.of(0));
    runScheduled();
    assert.equal(refused, true);
    assert.equal(writes.read(bar, 0, new Uint8Array(4)), true, 'free again afterwards');
  });

  it('are executed early when too many bytes wait, and refused from inside a handler', () => {
    const half = new Uint8Array(POSTED_LIMIT_BYTES / 2);
    writes.post(bar, 0, half);
    writes.post(bar, 0, half);
    assert.equal(log.length, 0);
    writes.post(bar, 0, Uint8Array.of(1));
    assert.equal(log.length, POSTED_LIMIT_BYTES / 8);
    runScheduled();
    const answers: boolean[] = [];
    const flooding = recordingBar(log, () => {
      for (let index = 0; index < 3; index++) answers.push(writes.post(bar, 0, half));
    });
    writes.post(flooding, 0, Uint8Array.of(1));
    scheduled.shift()!();
    assert.deepEqual(answers, [true, true, false]);
  });

  it('are lost at a reset, and later ones are not', () => {
    writes.post(bar, 0, Uint8Array.of(1));
    writes.drop();
    writes.post(bar, 0, Uint8Array.of(2));
    assert.equal(scheduled.length, 2, 'the bus may have dropped the first turn');
    runScheduled();
    assert.deepEqual(log, ['write 0=02']);
  });
});
