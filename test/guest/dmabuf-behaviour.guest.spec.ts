/**
 * What the dma-buf matrix does not show by itself: buffers that move, exporters that die, fences, memory
 * without pages, many at once. One guest for all; a failed test may take those behind it along. On 6.12
 * much is different: dmabuf-behaviour-lts.spec.ts.
 */
import assert from 'node:assert/strict';
import {
  amdgpu,
  BehaviourGuest,
  fencesAndManyBuffers,
  killedExporter,
  MIB,
  type NamedExporter,
  PATIENCE_S,
  resetGpu,
  STOP_WRITER,
  structPages,
  UNDISTURBED,
  udmabuf,
  unboundAmdgpu,
  unboundHabana,
  untilTrue,
  useGuest,
} from './dmabuf-behaviour.js';

describe('behaviour of dma-bufs, kernel latest, iommu=pt', () => {
  const scene = new BehaviourGuest();
  const gpu = amdgpu(scene);
  const habana: NamedExporter = { name: 'habanalabs', command: () => 'export-hbm 0' };
  const bar: NamedExporter = { name: 'vfio-pci', command: () => `export-bar ${scene.address('example0')} 2` };

  useGuest(scene, 'latest', 'iommu-pt');

  it('move_notify: a memory region faults when its VRAM buffer has moved, is filled again, and no byte is stale', async () => {
    for (let round = 1; round <= 3; round++) {
      const before = await scene.pageFaults();
      const lines = await scene.run(`${gpu.command()} ${4 * MIB} follow-move ${scene.adapters} ${4 * MIB}`);
      assert.deepEqual(
        lines.map(({ step, wrong, finished }) => finished ?? `${step}: ${wrong}`),
        ['before: 0', 'before: 0', 'while it moves: 0', 'after: 0', 'after: 0', true],
      );
      assert.ok((await scene.pageFaults()) > before, 'the buffer did not move');
    }
  });

  fencesAndManyBuffers(scene, { imported: 'VRAM' });

  for (const [name, target, exporter] of [
    ['habanalabs', 'habana0', () => `export-hbm --twice 0 ${MIB}`],
    ['vfio-pci', 'example0', () => `export-bar --twice ${scene.address('example0')} 2 ${MIB}`],
  ] as const) {
    it(`two dma-bufs of the same memory of ${name} serve two importers at once`, async () => {
      const rounds = 10;
      const lines = await scene.run(
        `${exporter()} import-twice ${scene.address('gpu1')} ${scene.adapters} 1M ${rounds}`,
      );
      assert.deepEqual(lines, [{ step: 'both', bytes: MIB, wrong: 0 }, { finished: true }]);
      // The GPU writes it once a round and reads it twice, the adapter reads and writes it once (import-twice.c).
      const memory = { registerReads: 0, registerWrites: 0 };
      assert.deepEqual(
        [await scene.transfer('gpu1', target), await scene.transfer('rdma0p0', target)],
        [
          { ...memory, bytesRead: 2 * rounds * MIB, bytesWritten: rounds * MIB },
          { ...memory, bytesRead: rounds * MIB, bytesWritten: rounds * MIB },
        ],
      );
    });
  }

  structPages(scene, [
    [gpu, false],
    [habana, false],
    [bar, false],
    [udmabuf, true],
  ]);

  killedExporter(scene, gpu);
  killedExporter(scene, habana);

  it("while an adapter writes, the exporter's process is killed: vfio-pci revokes the BAR, and not one byte follows", async () => {
    const { status } = await scene.disturb(`${bar.command()} 65536`, PATIENCE_S, 'kill -9 $exporter');
    assert.notEqual(status, 'success');
    const written = (await scene.transfer('rdma0p0', 'example0'))!.bytesWritten;
    await scene.sh(`${bar.command()} 65536 true`);
    assert.equal((await scene.transfer('rdma0p0', 'example0'))!.bytesWritten, written);
  });

  resetGpu(scene);

  describe('while an adapter writes, the exporting Gaudi is reset', () => {
    const card = () => `/sys/bus/pci/devices/${scene.address('habana0')}`;
    let resetsBefore: number;
    let logLinesBefore: number;

    const log = async () => (await scene.machine.guest.dmesg()).trimEnd().split('\n');
    const resetCount = async () => Number(await scene.sh(`cat ${card()}/hard_reset_cnt`));

    beforeEach(async () => {
      resetsBefore = await resetCount();
      logLinesBefore = (await log()).length;
    });

    /**
     * The reset comes to its end in the driver's words, the card works again, and the adapter
     * wrote nothing after its writer's end.
     */
    async function assertBackAgain(words: RegExp): Promise<void> {
      const written = (await scene.transfer('rdma0p0', 'habana0'))!.bytesWritten;
      await scene.sh(untilTrue(`[ "$(cat ${card()}/hard_reset_cnt)" -gt ${resetsBefore} ]`));
      await scene.sh(untilTrue(`grep -qx Operational ${card()}/status`));
      await scene.assertServes(`${habana.command()} 65536`);
      assert.equal((await scene.transfer('rdma0p0', 'habana0'))!.bytesWritten, written);
      assert.deepEqual(
        await scene.transfer('gpu1', 'habana0'),
        { bytesRead: 65536, bytesWritten: 65536, registerReads: 0, registerWrites: 0 },
        'the fresh export goes the same way',
      );
      assert.match((await log()).slice(logLinesBefore).join('\n'), words);
    }

    // A dma-buf holds the card's file (habanalabs/common/memory.c export_dmabuf), and device_kill_open_processes
    // waits for the file's end: hl_device_reset kills the exporter, then gives way and tries again every 10 s. The
    // test lets go after the first try. After 60 (HL_PENDING_RESET_MAX_TRIALS), 13 minutes in this guest, the driver
    // gives the card up until it is unbound and bound again.
    it('by its driver: the exporter is killed, writes go on, and the reset waits for the importer', async () => {
      const refused = 'Could not reset device (compute_ctx refcount';
      const end = await scene.disturb(
        `${habana.command()} 65536`,
        PATIENCE_S,
        `echo 1 > ${card()}/hard_reset
         ${untilTrue(`dmesg | grep -qF '${refused}'`)}
         [ "$(cat ${card()}/status)" = 'In reset' ]; [ "$(cat ${card()}/hard_reset_cnt)" = ${resetsBefore} ]
         ended=0; wait $exporter || ended=$?; [ $ended = 137 ]
         ${STOP_WRITER}`,
      );
      assert.deepEqual(end, UNDISTURBED);
      await assertBackAgain(
        /Going to reset device.*Killing user process pid=.*Could not reset device.*Successfully finished resetting/s,
      );
    });

    // drivers/pci/pci.c pcie_flr: memory decoding is off until pci_restore_state, so that nobody answers the adapter.
    it('by a function-level reset: the importer gets an error, and not one byte follows', async () => {
      const { status } = await scene.disturb(`${habana.command()} 65536`, PATIENCE_S, `echo 1 > ${card()}/reset`);
      assert.equal(status, 'remote access error');
      const { failedRequests } = (await scene.machine.emulator.stateOf('rdma0p0')).counters;
      assert.ok(failedRequests > 0, 'somebody answered the adapter');
      await assertBackAgain(/Going to reset device.*Successfully finished resetting/s);
    });
  });

  unboundHabana(scene);
  unboundAmdgpu(scene);
});
