/**
 * What the dma-buf matrix does not show by itself: buffers that move, exporters that die, fences, memory without pages, many at once.
 * One guest for all; a failed test may take those behind it along.
 */
import assert from 'node:assert/strict';
import { Cleanup } from '../../emulator/cli/cleanup.js';
import { sessionTools } from '../../emulator/cli/tools.js';
import type { TransferCounters } from '../../emulator/memory/counters.js';
import { topologies } from '../../matrix/declaration.js';
import { MatrixMachine } from '../../matrix/machine.js';
import type { AllowedComplaint } from '../../qemu/index.js';
import { assertCleanKernelLog, progress, sh } from './support.js';

const MIB = 2 ** 20;
const PATIENCE_S = 120;

const HABANA_WORKAROUND: AllowedComplaint = {
  pattern: /ghostbus_habana_open: .* taint/,
  reason: 'the workaround is built out of the kernel tree and not signed',
};

describe('behaviour of dma-bufs, kernel latest, iommu=pt', () => {
  const cleanup = new Cleanup();
  let machine: MatrixMachine;
  /** Arguments by the function's name: PCI addresses of GPUs and the example, names of RDMA devices. */
  let gpu0: string;
  let gpu1: string;
  let example: string;
  let adapters: string;

  before(async () => {
    const plan = topologies.find(({ name }) => name === 'iommu-pt')!;
    machine = await MatrixMachine.start('latest', plan, { tools: sessionTools, progress, cleanup });
    const { address, rdmaDevice } = machine.places;
    gpu0 = address('gpu0');
    gpu1 = address('gpu1');
    example = address('example0');
    adapters = `${rdmaDevice('rdma0p0')} ${rdmaDevice('rdma0p1')}`;
  });

  beforeEach(() => machine.emulator.resetCounters());

  afterEach(() => assertCleanKernelLog(machine.guest, [HABANA_WORKAROUND]));

  after(() => cleanup.end());

  /** Runs a command line in the guest; what it prints, an object a line. */
  async function run(command: string): Promise<Record<string, unknown>[]> {
    const output = await sh(machine.guest, command);
    return output
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  async function transfer(name: string, target: string): Promise<TransferCounters | undefined> {
    return (await machine.emulator.stateOf(name)).counters.peers[target];
  }

  it('move_notify: a memory region faults when its VRAM buffer has moved, is filled again, and no byte is stale', async () => {
    const faults = async () => {
      const { model } = await machine.emulator.stateOf('rdma0p0');
      return (model as { pageFaults: { raised: number } }).pageFaults.raised;
    };
    for (let round = 1; round <= 3; round++) {
      const before = await faults();
      const lines = await run(`export-vram ${gpu0} ${4 * MIB} follow-move ${adapters} ${4 * MIB}`);
      assert.deepEqual(
        lines.map(({ step, wrong, finished }) => finished ?? `${step}: ${wrong}`),
        ['before: 0', 'before: 0', 'while it moves: 0', 'after: 0', 'after: 0', true],
      );
      assert.ok((await faults()) > before, 'the buffer did not move');
    }
  });

  it('dma_fence: two GPUs hand a buffer over 1,000 times, each waiting by itself, and poll() tells when it is busy', async () => {
    const [result] = await run(`fence-pingpong ${gpu0} ${gpu1} 256K 1000`);
    assert.deepEqual([result!.rounds, result!.wrong], [1000, 0]);
    assert.ok((result!.busy as number) > 0, 'poll() never found the buffer busy');
  });

  for (const [name, target, exporter] of [
    ['habanalabs', 'habana0', () => `export-hbm --twice 0 ${MIB}`],
    ['vfio-pci', 'example0', () => `export-bar --twice ${example} 2 ${MIB}`],
  ] as const) {
    it(`two dma-bufs of the same memory of ${name} serve two importers at once`, async () => {
      const rounds = 10;
      const lines = await run(`${exporter()} import-twice ${gpu1} ${adapters} 1M ${rounds}`);
      assert.deepEqual(lines, [{ step: 'both', bytes: MIB, wrong: 0 }, { finished: true }]);
      // The GPU writes it once a round and reads it twice, the adapter reads and writes it once (import-twice.c).
      const memory = { registerReads: 0, registerWrites: 0 };
      assert.deepEqual(
        [await transfer('gpu1', target), await transfer('rdma0p0', target)],
        [
          { ...memory, bytesRead: 2 * rounds * MIB, bytesWritten: rounds * MIB },
          { ...memory, bytesRead: rounds * MIB, bytesWritten: rounds * MIB },
        ],
      );
    });
  }

  it('256 buffers, each imported by a GPU and an adapter, are taken down in random order', async () => {
    const vramInUse = `cat /sys/bus/pci/devices/${gpu0}/mem_info_vram_used`;
    const before = await sh(machine.guest, vramInUse);
    for (const seed of [1, 2, 3]) {
      const [result] = await run(`many-dmabufs ${gpu0} ${gpu1} ${adapters} 256 64K ${seed}`);
      assert.deepEqual(result, { buffers: 256, wrong: 0 });
    }
    await sh(machine.guest, untilTrue(`[ "$(${vramInUse})" = ${before.trim()} ]`));
  });

  describe('no struct page', () => {
    /** A return probe on the function that every importer maps with: whether the first entry of the table has a page. */
    const PROBE = 'r:mapped dma_buf_map_attachment link=+0(+0($retval)):x64';
    /** include/linux/scatterlist.h: the two lowest bits of page_link are flags. */
    const FLAGS = 3n;

    async function pagesOf(exporter: string): Promise<boolean[]> {
      await sh(
        machine.guest,
        `cd /sys/kernel/tracing 2>/dev/null && [ -e kprobe_events ] || { mount -t tracefs tracefs /sys/kernel/tracing; cd /sys/kernel/tracing; }
         echo > trace; echo '${PROBE}' > kprobe_events; echo 1 > events/kprobes/mapped/enable`,
      );
      await sh(machine.guest, `${exporter} 65536 import-rdma ${adapters} 0 65536 importer-first`);
      const trace = await sh(
        machine.guest,
        'cd /sys/kernel/tracing; cat trace; echo 0 > events/kprobes/mapped/enable; echo > kprobe_events',
      );
      const links = [...trace.matchAll(/link=(0x[0-9a-f]+)/g)].map(([, link]) => BigInt(link!));
      return links.map((link) => (link & ~FLAGS) !== 0n);
    }

    for (const [name, exporter, expected] of [
      ['amdgpu', () => `export-vram ${gpu0}`, false],
      ['habanalabs', () => 'export-hbm 0', false],
      ['vfio-pci', () => `export-bar ${example} 2`, false],
      ['udmabuf', () => 'export-memory udmabuf', true],
    ] as const) {
      it(`${name} hands out addresses ${expected ? 'with' : 'without'} pages`, async () => {
        const found = await pagesOf(exporter());
        assert.ok(found.length > 0, 'nothing was mapped');
        assert.ok(
          found.every((hasPage) => hasPage === expected),
          `pages: ${found}`,
        );
      });
    }
  });

  describe('revocation: while an adapter writes,', () => {
    const LOG = '/tmp/write-loop';

    /** Starts writing into an export, lets `event` happen, and waits for the writer's end; how that was. */
    async function disturb(exporter: string, seconds: number, event: string): Promise<Record<string, unknown>> {
      const output = await run(
        `rm -f ${LOG}; ${exporter} write-loop ${adapters} 65536 ${seconds} > ${LOG} 2>&1 & exporter=$!
         ${untilTrue(`grep -q writing ${LOG}`)} || { cat ${LOG}; exit 1; }
         ${event}
         ${untilTrue(`grep -q finished ${LOG}`)} || { cat ${LOG}; exit 1; }
         cat ${LOG}`,
      );
      return output.find(({ status }) => status !== undefined)!;
    }

    for (const [name, exporter] of [
      ['amdgpu', () => `export-vram ${gpu0} 65536`],
      ['habanalabs', () => 'export-hbm 0 65536'],
    ] as const) {
      it(`the exporter's process is killed: ${name} keeps the memory as long as it is imported`, async () => {
        const { status } = await disturb(exporter(), 4, 'kill -9 $exporter');
        assert.equal(status, 'success');
      });
    }

    it("the exporter's process is killed: vfio-pci revokes the BAR, and not one byte follows", async () => {
      const { status } = await disturb(`export-bar ${example} 2 65536`, PATIENCE_S, 'kill -9 $exporter');
      assert.notEqual(status, 'success');
      const written = (await transfer('rdma0p0', 'example0'))!.bytesWritten;
      await sh(machine.guest, `export-bar ${example} 2 65536 true`);
      assert.equal((await transfer('rdma0p0', 'example0'))!.bytesWritten, written);
    });

    it('the exporting GPU is reset: writes go on, and the buffer can be used afterwards', async () => {
      const { status } = await disturb(
        `export-vram ${gpu0} 65536`,
        6,
        `mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
         cat /sys/kernel/debug/dri/${gpu0}/amdgpu_gpu_recover`,
      );
      assert.equal(status, 'success');
      const lines = await run(`export-vram ${gpu0} 65536 import-gpu ${gpu1} 65536 0 65536 importer-first`);
      assert.deepEqual(lines.at(-1), { finished: true });
    });

    // The driver lets go of its function only when the last importer is gone: what is written until then is memory of its own.
    for (const [driver, name, exporter, ready] of [
      [
        'habanalabs',
        'habana0',
        () => 'export-hbm 0 65536',
        'grep -qsx Operational /sys/class/accel/accel*/device/status',
      ],
      ['amdgpu', 'gpu0', () => `export-vram ${gpu0} 65536`, '[ "$(ls /dev/dri | grep -c renderD)" = 2 ]'],
    ] as const) {
      it(`the exporting driver is unbound: ${driver} waits for the importer, and can be bound again`, async () => {
        const folder = `/sys/bus/pci/drivers/${driver}`;
        const address = machine.places.address(name);
        const { status } = await disturb(exporter(), 4, `echo ${address} > ${folder}/unbind &`);
        assert.equal(status, 'success');
        await sh(
          machine.guest,
          `${untilTrue(`[ ! -e ${folder}/${address} ]`)}; echo ${address} > ${folder}/bind; ${untilTrue(ready)}`,
        );
        const lines = await run(`${exporter()} import-gpu ${gpu1} 65536 0 65536 importer-first`);
        assert.deepEqual(lines.at(-1), { finished: true });
      });
    }
  });
});

/** A shell line that tries until `condition` holds once, and fails when it never does. */
function untilTrue(condition: string): string {
  return `(for try in $(seq ${PATIENCE_S * 10}); do if ${condition}; then exit 0; fi; sleep 0.1; done; exit 1)`;
}
