/**
 * Device memory with struct pages (ZONE_DEVICE, MEMORY_DEVICE_PCI_P2PDMA). No stock driver of Debian's kernels
 * gives such pages to a function that is emulated here: in 7.3 pci_p2pdma_add_resource is called by nvme for
 * its controller memory buffer, and by habanalabs only with CONFIG_HL_HLDIO. So the example's own driver does
 * as nvme does; everything from there on is the kernel's: p2pmem/allocate in sysfs (drivers/pci/p2pdma.c),
 * on-demand paging of mlx5 (mm/hmm.c hmm_dma_map_pfn).
 */
import assert from 'node:assert/strict';
import {
  assertCleanKernelLog,
  type BootOptions,
  type Guest,
  sh,
  type TestMachine,
  withMachine,
} from 'ghostbus/session';
import { driverReady, portsActive, RDMA_GUEST, rdmaDeviceNames, untilTrue } from '../../plugins/rdma/test/guest-kit.js';
import { PROGRAMS } from './support.js';

const MIB = 2 ** 20;
/** Of 16 MiB, the example's default; at the end of its memory. */
const OFFERED_MIB = 8;
const BYTES = MIB;
const PAGES = BYTES / 4096;
const ENGINE = 'ghostbus-example0';
const P2PMEM = `/sys/class/misc/${ENGINE}/device/p2pmem`;
/** What the adapter may move from and to guest memory where no payload goes: rings and page tables. */
const RING_BYTES = 64 * 1024;

/** Refusals of regions that pin. */
const PINNED = [
  // mm/gup.c writable_file_mapping_allowed: the mapping of a file of sysfs has a page_mkwrite
  // (fs/kernfs/file.c kernfs_vm_ops).
  { pinned: 'to be written', errno: 'EFAULT' },
  // mm/gup.c try_grab_folio: no FOLL_PCI_P2PDMA, which FOLL_LONGTERM excludes (is_valid_gup_args).
  { pinned: 'to be read', errno: 'EREMOTEIO' },
];
/** include/linux/memremap.h enum memory_type */
const MEMORY_DEVICE_PCI_P2PDMA = '5';

const MAPPED = { barOffset: (16 - OFFERED_MIB) * MIB, pages: PAGES, available: OFFERED_MIB * MIB - BYTES };
/** The engine fills them; READ and SEND take their bytes, WRITE and a SEND into them bring others. */
const MOVED = ['engine', 'read', 'write', 'send', 'receive'].map((step) => ({ step, bytes: BYTES, wrong: 0 }));

async function offerPages(guest: Guest): Promise<void> {
  await sh(guest, `modprobe -r ghostbus_example; modprobe ghostbus_example p2pmem_mib=${OFFERED_MIB}`);
}

/** Boots with pages on offer and both ports up. */
async function bootWithPages(machine: TestMachine, options: Partial<BootOptions> = {}): Promise<Guest> {
  const guest = await machine.boot(options);
  await offerPages(guest);
  await driverReady(guest, 2);
  await portsActive(guest, 2);
  await sh(
    guest,
    untilTrue(
      '[ "$(grep -lsv 0000:0000:0000:0000:0000:0000:0000:0000 /sys/class/infiniband/*/ports/1/gids/0 | wc -l)" = 2 ]',
    ),
  );
  await machine.emulator.resetCounters();
  return guest;
}

async function moveThroughPages(guest: Guest, ...more: readonly string[]): Promise<unknown[]> {
  const devices = await rdmaDeviceNames(guest);
  const output = await sh(guest, ['p2pmem-rdma', ENGINE, ...devices, BYTES, ...more].join(' '));
  return output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

/**
 * Exactly the payload went between the adapter that has the region and the example, and none of
 * it through guest memory.
 */
async function assertPeerToPeer({ emulator }: TestMachine): Promise<void> {
  const { counters } = await emulator.stateOf('rdma0p0');
  const { peers, guestMemory, messages } = counters;
  assert.deepEqual(peers, {
    example0: { bytesRead: 2 * BYTES, bytesWritten: 2 * BYTES, registerReads: 0, registerWrites: 0 },
  });
  assert.ok(guestMemory.bytesRead + guestMemory.bytesWritten <= RING_BYTES, JSON.stringify(guestMemory));
  assert.equal(messages.bytesRead + messages.bytesWritten, 0);
  assert.deepEqual((await emulator.stateOf('rdma0p1')).counters.peers, {});
}

/**
 * Puts a probe on what the kernel calls for each p2pdma page that it maps
 * (include/linux/pci-p2pdma.h pci_p2pdma_state).
 */
async function watchPages(guest: Guest): Promise<void> {
  await sh(
    guest,
    `mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
     cd /sys/kernel/tracing
     echo 'p:mapped __pci_p2pdma_update_state page=$arg3:x64 type=(folio)page->pgmap->type' > kprobe_events
     echo 1 > events/kprobes/mapped/enable`,
  );
}

/** The pages that were mapped: address of the struct page, and what kind of memory its owner says it is. */
async function pagesSeen(guest: Guest): Promise<{ page: bigint; type: string }[]> {
  const trace = await sh(
    guest,
    'cd /sys/kernel/tracing; cat trace; echo 0 > events/kprobes/mapped/enable; echo > kprobe_events',
  );
  return [...trace.matchAll(/page=(0x[0-9a-f]+) type=(\w+)/g)].map(([, page, type]) => ({
    page: BigInt(page!),
    type: type!,
  }));
}

describe('device memory as p2pdma pages', () => {
  const latest = (options: Partial<BootOptions>, use: (machine: TestMachine, guest: Guest) => Promise<void>) =>
    withMachine(
      { kernel: 'latest', devices: ['example', 'rdma,functions=2'], ...RDMA_GUEST, programs: [PROGRAMS] },
      async (machine) => {
        const guest = await bootWithPages(machine, options);
        await use(machine, guest);
        await assertCleanKernelLog(guest);
        await guest.shutdown();
      },
    );

  it('latest, host bridge: an adapter reaches them past the CPU, and no region can pin them', () =>
    latest({}, async (machine, guest) => {
      await watchPages(guest);
      assert.deepEqual(await moveThroughPages(guest), [MAPPED, ...PINNED, ...MOVED, { finished: true }]);
      const seen = await pagesSeen(guest);
      assert.deepEqual([...new Set(seen.map(({ type }) => type))], [MEMORY_DEVICE_PCI_P2PDMA]);
      assert.equal(new Set(seen.map(({ page }) => page)).size, PAGES);
      await assertPeerToPeer(machine);
      assert.equal(await sh(guest, `cat ${P2PMEM}/available`), `${OFFERED_MIB * MIB}\n`);

      await machine.emulator.resetCounters();
      assert.deepEqual(
        await moveThroughPages(guest, 'unbind'),
        [MAPPED, ...PINNED, ...MOVED, { unbound: true, status: 'remote operation error' }, { finished: true }],
        'a WRITE after the driver was unbound',
      );
      await assertPeerToPeer(machine);
    }));

  it('latest, below a switch: by bus address, although the kernel does not trust the host bridge', () =>
    latest({ topology: 'switch', cpu: 'qemu64' }, async (machine, guest) => {
      assert.deepEqual(await moveThroughPages(guest), [MAPPED, ...PINNED, ...MOVED, { finished: true }]);
      await assertPeerToPeer(machine);
    }));

  it('latest, a host bridge that the kernel does not trust: no region, and no byte', () =>
    latest({ cpu: 'qemu64' }, async ({ emulator }, guest) => {
      // The errno: infiniband/hw/mlx5/odp.c populate_mtt.
      assert.deepEqual(await moveThroughPages(guest), [MAPPED, ...PINNED, { refused: 'register', errno: 'EFAULT' }]);
      assert.match(await guest.dmesg(), /cannot be used for peer-to-peer DMA/);
      for (const { name, counters } of await emulator.state()) assert.deepEqual(counters.peers, {}, name);
    }));

  it('lts, built without CONFIG_PCI_P2PDMA: the driver says so and keeps its memory to itself', () =>
    withMachine({ kernel: 'lts', devices: ['example'] }, async ({ boot }) => {
      const guest = await boot();
      await offerPages(guest);
      assert.match(await guest.dmesg(), /8 of 16 MiB cannot become peer-to-peer pages: -95$/m);
      await sh(guest, `[ ! -e ${P2PMEM} ]; example-copy /dev/${ENGINE}`);
      await assertCleanKernelLog(guest);
      await guest.shutdown();
    }));
});
