import assert from 'node:assert/strict';
import { FakeTools } from '../session/test/fake-guest.js';
import { generateCells } from './cells.js';
import { debianKernels } from './kernels.js';
import { inParallel, runMatrix } from './run.js';
import { builtIn } from './test/made-up.js';

/** A piece of work that ends when the test says so. */
class Piece {
  began = false;
  end!: () => void;
  fail!: (error: Error) => void;
  readonly #ended: Promise<void>;

  constructor() {
    this.#ended = new Promise((resolve, reject) => {
      this.end = resolve;
      this.fail = reject;
    });
  }

  work(): Promise<void> {
    this.began = true;
    return this.#ended;
  }
}

const began = (pieces: readonly Piece[]) => pieces.map((piece) => piece.began);
const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('boots in parallel', () => {
  it('are no more than allowed at once, and begin in order', async () => {
    const pieces = Array.from({ length: 4 }, () => new Piece());
    const all = inParallel(pieces, 2, (piece) => piece.work());
    assert.deepEqual(began(pieces), [true, true, false, false]);
    pieces[1]!.end();
    await settle();
    assert.deepEqual(began(pieces), [true, true, true, false]);
    for (const piece of pieces) piece.end();
    await all;
    assert.deepEqual(began(pieces), [true, true, true, true]);
  });

  it('end all before a failure is told, and none begins after it', async () => {
    const pieces = Array.from({ length: 3 }, () => new Piece());
    let told = false;
    const all = inParallel(pieces, 2, (piece) => piece.work()).catch((error: Error) => {
      told = true;
      return error;
    });
    pieces[0]!.fail(new Error('interrupted'));
    await settle();
    assert.equal(told, false);
    pieces[1]!.end();
    assert.equal((await all)?.message, 'interrupted');
    assert.deepEqual(began(pieces), [true, true, false]);
  });
});

describe('the guests of the matrix', () => {
  for (const cold of [false, true]) {
    it(`are ${cold ? 'booted' : 'restored'} ${cold ? 'with' : 'without'} --cold`, async () => {
      const fake = new FakeTools({
        boot: async () => {
          throw new Error('that is enough');
        },
      });
      const chosen = { topologies: ['host-bridge'], importers: ['amdgpu'], sizes: ['4K'] };
      const cells = generateCells(builtIn, { ...chosen, kernels: [debianKernels.latest] });
      const context = { catalogue: builtIn, tools: fake.tools, progress: () => undefined, jobs: 1, cold };
      const { results } = await runMatrix(cells, context);
      assert.ok(results.some(({ problems }) => /that is enough/.test(problems.join())));
      assert.deepEqual(
        fake.boots.map(({ warm }) => warm === undefined),
        [cold],
      );
    });
  }
});
