/** The adapter under the stock mlx5_core and mlx5_ib, with rdma-core's own programs: `npm run test:guest`. */
import assert from 'node:assert/strict';
import { assertCleanKernelLog, guestAddresses, KERNELS, sh, withMachine } from 'ghostbus/session';
import {
  bytesMoved,
  driverReady,
  GUEST_SCRIPTS,
  objects,
  pingPong,
  portsActive,
  RDMA_GUEST,
  rdmaDeviceNames,
  unload,
  untilTrue,
} from './guest-kit.js';

const RELOADS = 20;
/** `-c` compares what arrives, `-e` waits for events, `-o` and `-O` page on demand. */
const PING_PONGS = [
  'ibv_rc_pingpong -c',
  'ibv_rc_pingpong -c -e',
  'ibv_rc_pingpong -c -o',
  'ibv_rc_pingpong -c -O',
  'ibv_uc_pingpong -c',
  'ibv_uc_pingpong -c -e',
  'ibv_ud_pingpong -c',
  'ibv_ud_pingpong -c -e',
  'ibv_srq_pingpong -c',
  'ibv_srq_pingpong -c -e',
];

describe('rdma under mlx5_core and mlx5_ib', () => {
  for (const kernel of KERNELS) {
    it(`${kernel}: four adapters probe, reach ACTIVE, survive unbinding and function-level reset, and leave nothing`, async () => {
      await withMachine({ kernel, devices: ['rdma,functions=4'], ...RDMA_GUEST }, async ({ boot, emulator }) => {
        const guest = await boot();
        await driverReady(guest, 4);
        await portsActive(guest, 4);
        await unload(guest);
        await driverReady(guest, 4);
        const { name } = emulator.functions[0]!;
        const address = (await guestAddresses(guest, emulator)).get(name)!;
        await sh(
          guest,
          `cd /sys/bus/pci/drivers/mlx5_core
             echo ${address} > unbind; echo 1 > /sys/bus/pci/devices/${address}/reset; echo ${address} > bind`,
        );
        await driverReady(guest, 4);
        await portsActive(guest, 4);
        await assertCleanKernelLog(guest);
        await unload(guest);
        const { heapBytes, ...left } = await objects(emulator, name);
        const alive = Object.entries(left).filter(([, count]) => count !== 0);
        assert.deepEqual(alive, [], `objects are left (${heapBytes} bytes)`);
      });
    });

    it(`${kernel}: the drivers load and unload ${RELOADS} times`, async () => {
      await withMachine({ kernel, devices: ['rdma'], ...RDMA_GUEST }, async ({ boot }) => {
        const guest = await boot();
        for (let round = 0; round < RELOADS; round++) {
          await driverReady(guest, 1);
          await unload(guest);
        }
        await driverReady(guest, 1);
        await portsActive(guest, 1);
        await assertCleanKernelLog(guest);
      });
    });

    it(`${kernel}: every transport carries messages between two adapters and on one, with events and on-demand paging, explicit and implicit`, async () => {
      await withMachine({ kernel, devices: ['rdma,functions=2'], ...RDMA_GUEST }, async ({ boot }) => {
        const guest = await boot();
        await driverReady(guest, 2);
        await portsActive(guest, 2);
        const [first, second] = await rdmaDeviceNames(guest);
        const described = await sh(guest, 'ibv_devinfo -v');
        assert.equal(described.match(/state:\s+PORT_ACTIVE/g)?.length, 2, described);
        assert.equal(described.match(/ODP_SUPPORT_IMPLICIT/g)?.length, 2, described);
        for (const program of PING_PONGS) await pingPong(guest, program, first!, second!);
        for (const program of PING_PONGS.filter((name) => !name.includes('-o')))
          await pingPong(guest, program, first!, first!);
        await assertCleanKernelLog(guest);
      });
    });

    it(`${kernel}: two network namespaces reach each other by ping and by rdma_cm`, async () => {
      await withMachine({ kernel, devices: ['rdma,functions=2'], ...RDMA_GUEST }, async ({ boot }) => {
        const guest = await boot();
        await driverReady(guest, 2);
        await sh(
          guest,
          `set -- $(ls -d /sys/bus/pci/drivers/mlx5_core/*/net/*); left=$(basename $1); right=$(basename $2)
           ip netns add right; ip link set $right netns right
           ip addr add 10.0.0.1/24 dev $left; ip link set $left up
           ip netns exec right ip addr add 10.0.0.2/24 dev $right; ip netns exec right ip link set $right up
           ${untilTrue('ping -c 1 -W 1 10.0.0.2 >/dev/null')}
           ping -c 5 -i 0.2 10.0.0.2
           rping -s -a 10.0.0.1 -C 10 & server=$!
           ${untilTrue('ip netns exec right timeout 30 rping -c -a 10.0.0.1 -C 10')}
           wait $server`,
        );
        await assertCleanKernelLog(guest);
      });
    });
  }

  for (const [kernel, devices, kinds] of [
    ['lts', ['rdma,functions=2'], ['heap', 'udmabuf']],
    ['latest', ['gpu', 'rdma,functions=2'], ['heap', 'udmabuf', 'vram']],
  ] as const) {
    it(`${kernel}: RDMA reaches dma-bufs of ${kinds.join(', ')}, byte for byte`, async () => {
      await withMachine({ kernel, devices, ...RDMA_GUEST }, async ({ boot, emulator }) => {
        const guest = await boot({ shareDir: GUEST_SCRIPTS });
        await driverReady(guest, 2);
        await portsActive(guest, 2);
        const names = (await rdmaDeviceNames(guest)).join(' ');
        if (kinds.some((kind) => kind === 'vram'))
          await sh(guest, `modprobe amdgpu; ${untilTrue('[ -e /dev/dri/renderD128 ]')}`);
        for (const kind of kinds) {
          await emulator.resetCounters();
          const moved = bytesMoved(await sh(guest, `python3 -B /mnt/share/rdma-dmabuf.py ${names} ${kind}`));
          const [server] = emulator.functions.filter(({ plugin }) => plugin === 'rdma');
          const { peers } = (await emulator.stateOf(server!.name)).counters;
          assert.deepEqual(peers.gpu0, kind === 'vram' ? moved : undefined, `bytes between ${kind} and the adapter`);
        }
        await assertCleanKernelLog(guest);
      });
    });
  }
});
