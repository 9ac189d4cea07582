/**
 * What the specs of dma-buf behaviour share: a guest with every exporter and importer, and the
 * tests that hold on both kernels.
 */
import assert from 'node:assert/strict';
import { assertCleanKernelLog, Cleanup, type Kernel, sessionTools, sh } from 'ghostbus/session';
import type { TransferCounters } from '../../emulator/memory/counters.js';
import { loadCatalogue } from '../../matrix/catalogue.js';
import { MatrixMachine } from '../../matrix/machine.js';
import { topologies } from '../../matrix/topologies.js';
import { UNBINDING } from '../../plugins/habana/test/guest-kit.js';
import { PROGRAMS, progress } from './support.js';

export const MIB = 2 ** 20;
export const PATIENCE_S = 120;

/** Where the writer of {@link BehaviourGuest.disturb} prints. */
const WRITER_LOG = '/tmp/write-loop';

/** Lets the writer end as if its time were over. */
export const STOP_WRITER = `kill -TERM "$(sed -n 's/.*"pid":\\([0-9]*\\).*/\\1/p' ${WRITER_LOG})"`;

const TRACING =
  'cd /sys/kernel/tracing; [ -e kprobe_events ] || { mount -t tracefs tracefs .; cd /sys/kernel/tracing; }';

/**
 * How a disturbed writer ended: its last write, and, if that succeeded, one that it tried after it gave the region up.
 */
export interface WriterEnd {
  readonly status: string;
  readonly afterwards: string | undefined;
  /** Whether a driver had let go of its function before or after the last write. */
  readonly unbound?: 'before' | 'after';
}

/** A buffer's way from one of amdgpu's domains to another, as in `VRAM to GTT`, and its size. */
interface Move {
  readonly way: string;
  readonly bytes: number;
}

/** include/drm/ttm/ttm_placement.h TTM_PL_*; -1 where a buffer comes into being or goes. */
const DOMAINS: Readonly<Record<string, string>> = { '0': 'system', '1': 'GTT', '2': 'VRAM' };

/** One guest with all functions of the matrix; places are known once it has started. */
export class BehaviourGuest {
  readonly #cleanup = new Cleanup();
  #machine: MatrixMachine | undefined;

  async start(kernel: Kernel, topology: string): Promise<void> {
    const plan = topologies.find(({ name }) => name === topology)!;
    const choice = { catalogue: await loadCatalogue(), kernel, plan, programs: [PROGRAMS] };
    this.#machine = await MatrixMachine.start(choice, { tools: sessionTools, progress, cleanup: this.#cleanup });
  }

  end(): Promise<void> {
    return this.#cleanup.end();
  }

  get machine(): MatrixMachine {
    assert.ok(this.#machine, 'the guest did not start');
    return this.#machine;
  }

  /** A function's PCI address in the guest. */
  address(name: string): string {
    return this.machine.places.address(name);
  }

  /** The adapter that imports and the one that writes to it. */
  get adapters(): string {
    const { noted } = this.machine.places;
    return `${noted(this.address('rdma0p0'))} ${noted(this.address('rdma0p1'))}`;
  }

  sh(script: string): Promise<string> {
    return sh(this.machine.guest, script);
  }

  /** Runs a command line in the guest; what it prints, an object a line. */
  async run(command: string): Promise<Record<string, unknown>[]> {
    const output = await this.sh(command);
    return output
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** What `name` moved from and to the memory of `target`. */
  async transfer(name: string, target: string): Promise<TransferCounters | undefined> {
    return (await this.machine.emulator.stateOf(name)).counters.peers[target];
  }

  /** Every pair of functions between which the fabric or a link moved anything since the counters' last reset. */
  async pairs(): Promise<string[]> {
    const states = await this.machine.emulator.state();
    return states.flatMap(({ name, counters: { peers, links } }) =>
      [...Object.keys(peers), ...Object.keys(links)].map((target) => `${name} and ${target}`),
    );
  }

  /** How often the importing adapter has raised a page fault. */
  async pageFaults(): Promise<number> {
    const { model } = await this.machine.emulator.stateOf('rdma0p0');
    return (model as { pageFaults: { raised: number } }).pageFaults.raised;
  }

  /** Starts writing into an export, lets `event` happen, waits for the writer's end, and for what follows from that. */
  async disturb(exporter: string, seconds: number, event: string, aftermath = ':'): Promise<WriterEnd> {
    const output = await this.run(
      `: > ${WRITER_LOG}; ${exporter} write-loop ${this.adapters} 65536 ${seconds} >> ${WRITER_LOG} 2>&1 & exporter=$!
       ${untilTrue(`grep -q writing ${WRITER_LOG}`)} || { cat ${WRITER_LOG}; exit 1; }
       ${event}
       ${untilTrue(`grep -q finished ${WRITER_LOG}`)} || { cat ${WRITER_LOG}; exit 1; }
       ${aftermath}
       cat ${WRITER_LOG}`,
    );
    const place = (key: string) => output.findIndex((line) => key in line);
    const told = Object.assign({}, ...output) as { status: string; afterwards?: string };
    return {
      status: told.status,
      afterwards: told.afterwards,
      ...(place('unbound') >= 0 && { unbound: place('unbound') < place('status') ? 'before' : 'after' }),
    };
  }

  /** A fresh export, imported by the other GPU: both ends find every byte that the other one wrote. */
  async assertServes(exporter: string): Promise<void> {
    const lines = await this.run(`${exporter} import-gpu ${this.address('gpu1')} 65536 0 65536 importer-first`);
    assert.deepEqual(lines, [
      { step: 'read', bytes: 65536, wrong: 0 },
      { step: 'write', bytes: 65536, wrong: 0 },
      { finished: true },
    ]);
  }

  /** Which buffers amdgpu moved while a command ran, and what that printed. */
  async movesDuring(command: string): Promise<{ moves: Move[]; lines: Record<string, unknown>[] }> {
    const event = 'events/amdgpu/amdgpu_bo_move/enable';
    await this.sh(`${TRACING}; echo > trace; echo 1 > ${event}`);
    const lines = await this.run(command);
    const trace = await this.sh(`cd /sys/kernel/tracing; echo 0 > ${event}; cat trace; echo > trace`);
    const found = [...trace.matchAll(/amdgpu_bo_move: bo=\S+ from=(-?\d+), to=(-?\d+), size=(\d+)/g)];
    const moves = found
      .map(([, from, to, bytes]) => ({ from: DOMAINS[from!], to: DOMAINS[to!], bytes: Number(bytes) }))
      .filter(({ from, to }) => from !== undefined && to !== undefined)
      .map(({ from, to, bytes }) => ({ way: `${from} to ${to}`, bytes }));
    return { moves, lines };
  }

  /**
   * Whether the first entry of each table that an importer gets has a page, by a return probe on
   * what all of them map with.
   */
  async pagesOf(exporter: string): Promise<boolean[]> {
    const probe = 'r:mapped dma_buf_map_attachment link=+0(+0($retval)):x64';
    await this.sh(`${TRACING}; echo > trace; echo '${probe}' > kprobe_events; echo 1 > events/kprobes/mapped/enable`);
    await this.sh(`${exporter} 65536 import-rdma ${this.adapters} 0 65536 importer-first`);
    const trace = await this.sh(
      'cd /sys/kernel/tracing; cat trace; echo 0 > events/kprobes/mapped/enable; echo > kprobe_events',
    );
    const links = [...trace.matchAll(/link=(0x[0-9a-f]+)/g)].map(([, link]) => BigInt(link!));
    // include/linux/scatterlist.h: the two lowest bits of page_link are flags.
    return links.map((link) => (link & ~3n) !== 0n);
  }
}

/** An exporter with the arguments that it needs, as a command line to which the size and an importer are added. */
export interface NamedExporter {
  readonly name: string;
  readonly command: () => string;
}

export const amdgpu = (scene: BehaviourGuest): NamedExporter => ({
  name: 'amdgpu',
  command: () => `export-vram ${scene.address('gpu0')}`,
});

export const udmabuf: NamedExporter = { name: 'udmabuf', command: () => 'export-memory udmabuf' };

/** Boots the guest for a suite; after each test looks at the kernel's log, and for functions that gave up. */
export function useGuest(scene: BehaviourGuest, kernel: Kernel, topology: string): void {
  before(() => scene.start(kernel, topology));
  beforeEach(() => scene.machine.emulator.resetCounters());
  afterEach(async () => {
    await assertCleanKernelLog(scene.machine.guest, [UNBINDING]);
    const states = await scene.machine.emulator.state();
    assert.deepEqual(
      states.filter(({ broken }) => broken !== undefined),
      [],
    );
  });
  after(() => scene.end());
}

interface AmdgpuFacts {
  /** Where amdgpu leaves VRAM that others import: it is read and written there, or staged in GTT. */
  readonly imported: 'VRAM' | 'GTT';
}

export function fencesAndManyBuffers(scene: BehaviourGuest, { imported }: AmdgpuFacts): void {
  it('dma_fence: two GPUs hand a buffer over 1,000 times, each waiting by itself, and poll() tells when it is busy', async () => {
    const [result] = await scene.run(`fence-pingpong ${scene.address('gpu0')} ${scene.address('gpu1')} 256K 1000`);
    assert.deepEqual([result!.rounds, result!.wrong], [1000, 0]);
    assert.ok((result!.busy as number) > 0, 'poll() never found the buffer busy');
  });

  it('one dma-buf of a GPU serves another GPU and an adapter at once', async () => {
    const lines = await scene.run(
      `export-vram --twice ${scene.address('gpu0')} ${MIB} import-twice ${scene.address('gpu1')} ${scene.adapters} 1M 10`,
    );
    assert.deepEqual(lines, [{ step: 'both', bytes: MIB, wrong: 0 }, { finished: true }]);
    const expected = imported === 'VRAM' ? 10 * MIB : undefined;
    assert.equal((await scene.transfer('gpu1', 'gpu0'))?.bytesWritten, expected);
    assert.equal((await scene.transfer('rdma0p0', 'gpu0'))?.bytesRead, expected);
  });

  // amdgpu_dma_buf_map moves the buffer for an importer that cannot reach VRAM, and amdgpu_cs_bo_validate wants it back
  // in VRAM for the GPU's own job once nobody is attached.
  it(`a buffer registered again and again is in ${imported} for the adapter, in VRAM for its GPU alone, and no byte is stale`, async () => {
    const rounds = 3;
    const { moves, lines } = await scene.movesDuring(
      `export-vram ${scene.address('gpu0')} ${4 * MIB} import-again ${scene.adapters} ${4 * MIB} ${rounds}`,
    );
    assert.deepEqual(lines, [{ step: 'again', bytes: 4 * MIB, wrong: 0 }, { finished: true }]);
    const expected = imported === 'VRAM' ? [] : Array(rounds).fill(['VRAM to GTT', 'GTT to VRAM']).flat();
    assert.deepEqual(
      moves.filter(({ bytes }) => bytes === 4 * MIB).map(({ way }) => way),
      expected,
    );
  });

  it('256 buffers, each imported by a GPU and an adapter, are taken down in random order', async () => {
    const gpu0 = scene.address('gpu0');
    const vramInUse = `cat /sys/bus/pci/devices/${gpu0}/mem_info_vram_used`;
    const before = await scene.sh(vramInUse);
    for (const seed of [1, 2, 3]) {
      const [result] = await scene.run(
        `many-dmabufs ${gpu0} ${scene.address('gpu1')} ${scene.adapters} 256 64K ${seed}`,
      );
      assert.deepEqual(result, { buffers: 256, wrong: 0 });
    }
    await scene.sh(untilTrue(`[ "$(${vramInUse})" = ${before.trim()} ]`));
  });
}

export function structPages(scene: BehaviourGuest, expectations: readonly (readonly [NamedExporter, boolean])[]): void {
  for (const [{ name, command }, expected] of expectations) {
    it(`${name} hands out addresses ${expected ? 'with' : 'without'} struct pages`, async () => {
      const found = await scene.pagesOf(command());
      assert.ok(found.length > 0, 'nothing was mapped');
      assert.ok(
        found.every((hasPage) => hasPage === expected),
        `pages: ${found}`,
      );
    });
  }
}

/** A writer that nothing disturbed, and whose key was worth nothing after it gave the region up. */
export const UNDISTURBED: WriterEnd = { status: 'success', afterwards: 'remote access error' };

export function killedExporter(scene: BehaviourGuest, { name, command }: NamedExporter): void {
  it(`while an adapter writes, the exporter's process is killed: ${name} keeps the memory as long as it is imported`, async () => {
    assert.deepEqual(await scene.disturb(`${command()} 65536`, 4, 'kill -9 $exporter'), UNDISTURBED);
  });
}

export function resetGpu(scene: BehaviourGuest): void {
  it('while an adapter writes, the exporting GPU is reset: writes go on, and the buffer can be used afterwards', async () => {
    const gpu0 = scene.address('gpu0');
    const end = await scene.disturb(
      `export-vram ${gpu0} 65536`,
      PATIENCE_S,
      `mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
       cat /sys/kernel/debug/dri/${gpu0}/amdgpu_gpu_recover
       ${STOP_WRITER}`,
    );
    assert.deepEqual(end, UNDISTURBED);
    await scene.assertServes(`export-vram ${gpu0} 65536`);
  });
}

/** Binds a driver that was unbound, waits until `ready` holds, and uses a fresh export. */
async function assertBindsAgain(
  scene: BehaviourGuest,
  exporter: string,
  { folder, address, ready }: { readonly folder: string; readonly address: string; readonly ready: string },
): Promise<void> {
  await scene.sh(`echo ${address} > ${folder}/bind; ${untilTrue(ready)}`);
  await scene.assertServes(exporter);
}

/**
 * amdgpu_pci_remove waits for nobody, and the buffer stays as long as somebody holds it. So do the old
 * instance's files in sysfs, for want of which a new one does not come up (amdgpu_gfx_sysfs_init:
 * -EEXIST): nobody else gets the memory meanwhile.
 */
export function unboundAmdgpu(scene: BehaviourGuest): void {
  it('while an adapter writes, amdgpu is unbound: it lets go at once, writes go on, and it can be bound again', async () => {
    const exporter = `export-vram ${scene.address('gpu0')} 65536`;
    const address = scene.address('gpu0');
    const folder = '/sys/bus/pci/drivers/amdgpu';
    const end = await scene.disturb(
      exporter,
      PATIENCE_S,
      `echo ${address} > ${folder}/unbind; echo '{"unbound":true}' >> ${WRITER_LOG}; ${STOP_WRITER}`,
      'wait $exporter',
    );
    assert.deepEqual(end, { ...UNDISTURBED, unbound: 'before' });
    const ready = '[ "$(ls /dev/dri | grep -c renderD)" = 2 ]';
    await assertBindsAgain(scene, exporter, { folder, address, ready });
  });
}

/**
 * habanalabs/common/device.c hl_device_fini kills the exporter and waits until its file is
 * closed, which the dma-buf holds.
 */
export function unboundHabana(scene: BehaviourGuest): void {
  it('while an adapter writes, habanalabs is unbound: it waits for the importer, and can be bound again', async () => {
    const address = scene.address('habana0');
    const folder = '/sys/bus/pci/drivers/habanalabs';
    const end = await scene.disturb(
      'export-hbm 0 65536',
      4,
      `{ echo ${address} > ${folder}/unbind; echo '{"unbound":true}' >> ${WRITER_LOG}; } &`,
      untilTrue(`grep -q unbound ${WRITER_LOG}`),
    );
    assert.deepEqual(end, { ...UNDISTURBED, unbound: 'after' });
    const ready = 'grep -qsx Operational /sys/class/accel/accel*/device/status';
    await assertBindsAgain(scene, 'export-hbm 0 65536', { folder, address, ready });
  });
}

/** A shell line that tries until `condition` holds once, and fails when it never does. */
export function untilTrue(condition: string): string {
  return `(for try in $(seq ${PATIENCE_S * 10}); do if ${condition}; then exit 0; fi; sleep 0.1; done; exit 1)`;
}
