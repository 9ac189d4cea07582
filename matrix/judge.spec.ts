import assert from 'node:assert/strict';
import { emptyFunctionCounters, type FunctionCounters } from '../emulator/memory/counters.js';
import { type Cell, generateCells, stepsOf } from './cells.js';
import { expectationOf } from './expectation.js';
import { judge, type Observation } from './judge.js';
import { debianKernels } from './kernels.js';
import { builtIn as catalogue } from './test/made-up.js';

function cellOf(id: string): Cell {
  return generateCells(catalogue).find((candidate) => candidate.id === id)!;
}

/** Counters in which `name` has moved bytes from and to `target`: a function, or `guestMemory`, or `messages`. */
function countersWith(name: string, target: string, bytesRead: number, bytesWritten: number) {
  const counters: Record<string, FunctionCounters> = {};
  for (const each of ['gpu0', 'gpu1', 'habana0', 'rdma0p0', 'rdma0p1', 'example0', 'example1'])
    counters[each] = emptyFunctionCounters();
  const transfer = { bytesRead, bytesWritten, registerReads: 0, registerWrites: 0 };
  if (target === 'guestMemory' || target === 'messages') counters[name]![target] = transfer;
  else counters[name]!.peers[target] = transfer;
  return counters;
}

function observe(cell: Cell, more: Partial<Observation>): Observation {
  const steps = stepsOf(cell).map(({ name, bytes }) => ({ step: name, bytes, wrong: 0 }));
  return {
    exitStatus: 0,
    lines: [...steps, { finished: true }],
    stderr: '',
    counters: {},
    kernelLog: [],
    complaints: [],
    ...more,
  };
}

const problemsOf = (cell: Cell, observation: Observation) => judge(cell, expectationOf(cell), observation).problems;

describe('judging a cell', () => {
  const p2p = cellOf('latest/switch/amdgpu-vram/amdgpu/4K');
  const good = observe(p2p, { counters: countersWith('gpu1', 'gpu0', 4096, 4096) });

  it('accepts exactly the moved bytes between exactly that pair', () => {
    assert.deepEqual(judge(p2p, expectationOf(p2p), good), { problems: [], outcome: 'P2P', guestMemoryBytes: 0 });
  });

  it('counts what every verb moves', () => {
    const cell = cellOf('latest/switch/habanalabs-hbm/mlx5/64K');
    const counters = countersWith('rdma0p0', 'habana0', 3 * 65_536 + 24, 2 * 65_536 + 24);
    assert.deepEqual(problemsOf(cell, observe(cell, { counters })), []);
  });

  for (const [what, change] of [
    ['a byte too many', { counters: countersWith('gpu1', 'gpu0', 4097, 4096) }],
    ['a byte too few', { counters: countersWith('gpu1', 'gpu0', 4096, 4095) }],
    ['another pair', { counters: { ...good.counters, rdma0p0: countersWith('rdma0p0', 'gpu0', 1, 0).rdma0p0! } }],
    ['a wrong byte', { lines: [{ step: 'read', bytes: 4096, wrong: 1 }, ...good.lines.slice(1)] }],
    ['a missing step', { lines: good.lines.slice(1) }],
    ['no end', { lines: good.lines.slice(0, -1) }],
    ['a refusal', { lines: [{ refused: 'job', errno: 'EPERM' }] }],
    ['a failed program', { exitStatus: 1, stderr: 'it broke' }],
    ['a kernel that complains', { complaints: ['WARNING: at mm'] }],
    ['staging', { counters: countersWith('gpu1', 'guestMemory', 1e6, 1e6) }],
  ] as const) {
    it(`does not accept ${what} as P2P`, () => {
      assert.notDeepEqual(problemsOf(p2p, { ...good, ...change }), []);
    });
  }

  it('does not accept payload through guest memory beside the peer’s', () => {
    const counters = structuredClone(countersWith('gpu1', 'gpu0', 2 ** 21, 2 ** 21));
    counters.gpu1!.guestMemory.bytesRead = 2 ** 21;
    const cell = cellOf('latest/switch/amdgpu-vram/amdgpu/2M');
    assert.match(problemsOf(cell, observe(cell, { counters })).join(), /through guest memory/);
  });

  it('wants DMA messages where the IOMMU translates, and none elsewhere', () => {
    const translated = cellOf('latest/iommu/amdgpu-vram/amdgpu/4K');
    const counters = countersWith('gpu1', 'messages', 4096, 4096);
    assert.deepEqual(judge(translated, expectationOf(translated), observe(translated, { counters })), {
      problems: [],
      outcome: 'P2P (messages)',
      guestMemoryBytes: 0,
    });
    assert.notDeepEqual(problemsOf(p2p, { ...good, counters }), []);
    assert.notDeepEqual(problemsOf(translated, observe(translated, { counters: good.counters })), []);
  });

  it('counts an importer’s own end in guest memory, no less and little more than the payload', () => {
    const kernel = { ...debianKernels.latest, choice: '/mine', label: 'mine', has: () => true };
    const [cell] = generateCells(catalogue, {
      kernels: [kernel],
      topologies: ['iommu-pt'],
      exporters: ['vfio-bar'],
      importers: ['iommufd'],
      sizes: ['4K'],
    });
    const problemsWith = (guestBytes: number) => {
      const counters = countersWith('example1', 'messages', 4096, 4096);
      counters.example1!.guestMemory.bytesRead = guestBytes;
      return problemsOf(cell!, observe(cell!, { counters }));
    };
    assert.deepEqual(problemsWith(2 * 4096 + 100), []);
    assert.match(problemsWith(2 * 4096 - 1).join(), /own end/);
    assert.match(problemsWith(3 * 4096).join(), /own end/);
  });

  it('wants staged bytes in guest memory, and none between functions', () => {
    const cell = cellOf('lts/switch/amdgpu-vram/amdgpu/4K');
    const staged = observe(cell, { counters: countersWith('gpu1', 'guestMemory', 5000, 5000) });
    assert.deepEqual(judge(cell, expectationOf(cell), staged), {
      problems: [],
      outcome: 'staged',
      guestMemoryBytes: 10_000,
    });
    assert.notDeepEqual(problemsOf(cell, observe(cell, { counters: good.counters })), []);
    assert.notDeepEqual(problemsOf(cell, { ...staged, counters: countersWith('gpu1', 'guestMemory', 4000, 5000) }), []);
  });

  describe('refused', () => {
    const cell = cellOf('latest/refused/habanalabs-hbm/mlx5/4K');
    const said =
      'mlx5_core 0000:05:00.0: cannot be used for peer-to-peer DMA as the client and provider (0000:03:00.0) do not share';
    const refusal = observe(cell, {
      lines: [{ refused: 'register', errno: 'EPERM' }],
      counters: countersWith('rdma0p0', 'guestMemory', 100, 100),
      kernelLog: [said],
    });

    it('accepts the errno at the place, with the kernel’s words', () => {
      assert.deepEqual(judge(cell, expectationOf(cell), refusal), {
        problems: [],
        outcome: 'EPERM',
        guestMemoryBytes: 200,
      });
    });

    for (const [what, change] of [
      ['another errno', { lines: [{ refused: 'register', errno: 'EINVAL' }] }],
      ['another place', { lines: [{ refused: 'export', errno: 'EPERM' }] }],
      ['success', { lines: [{ finished: true }] }],
      ['silence of the kernel', { kernelLog: [] }],
      ['bytes that went nevertheless', { counters: countersWith('rdma0p0', 'habana0', 8, 0) }],
    ] as const) {
      it(`does not accept ${what}`, () => {
        assert.notDeepEqual(problemsOf(cell, { ...refusal, ...change }), []);
      });
    }
  });
});
