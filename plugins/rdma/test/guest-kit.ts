/** What guest tests of the adapter share: drivers loaded, ports up, names and counts. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { type Emulator, type FunctionState, type Guest, sh } from 'ghostbus/session';

/** Scripts that these tests show to the guest at /mnt/share. */
export const GUEST_SCRIPTS = fileURLToPath(new URL('../../../../plugins/rdma/test', import.meta.url));

/**
 * One user space for all of them, so that it is made once. python3-pyverbs brings rdma-core's own tests, as
 * documentation.
 */
export const RDMA_GUEST = {
  packages: [
    'ibverbs-utils',
    'ibverbs-providers',
    'rdmacm-utils',
    'iputils-ping',
    'iproute2',
    'python3',
    'python3-pyverbs',
  ],
  documentation: ['rdma-core'],
};

/** Loads the drivers and waits for `count` adapters. */
export async function driverReady(guest: Guest, count: number): Promise<void> {
  await sh(
    guest,
    `modprobe mlx5_core; modprobe mlx5_ib; modprobe ib_uverbs; modprobe rdma_ucm
     ${untilTrue(`[ "$(ls /dev/infiniband 2>/dev/null | grep -c uverbs)" = ${count} ]`)}`,
  );
}

/** Takes the drivers out; udev may still be loading the second when the first has just come. */
export async function unload(guest: Guest): Promise<void> {
  await sh(guest, untilTrue('modprobe -qr mlx5_ib && modprobe -qr mlx5_core && [ ! -e /sys/module/mlx5_core ]'));
}

/** Brings the network interfaces up and waits until the ports are active. */
export async function portsActive(guest: Guest, count: number): Promise<void> {
  await sh(
    guest,
    `for path in /sys/bus/pci/drivers/mlx5_core/*/net/*; do ip link set $(basename $path) up; done
     ${untilTrue(`[ "$(grep -l ACTIVE /sys/class/infiniband/*/ports/1/state | wc -l)" = ${count} ]`)}`,
  );
}

/** A shell line that tries until `condition` holds once, and fails when it never does. */
export function untilTrue(condition: string): string {
  return `held=no; for try in $(seq 600); do if ${condition}; then held=yes; break; fi; sleep 0.1; done; [ $held = yes ]`;
}

/** Runs a ping-pong between two adapters (or on one) over their link-local GIDs. */
export async function pingPong(guest: Guest, program: string, server: string, client: string): Promise<void> {
  const run = (device: string) => `timeout 60 ${program} -d ${device} -g 0 -n 100`;
  await sh(
    guest,
    `${run(server)} >/tmp/server 2>&1 & server=$!
     ${untilTrue('grep -qh ":4853 .* 0A " /proc/net/tcp /proc/net/tcp6')}
     ${run(client)} localhost; wait $server`,
  );
}

/** The names of the RDMA devices, in the order of their functions. */
export async function rdmaDeviceNames(guest: Guest): Promise<string[]> {
  return (await sh(guest, 'ls /sys/class/infiniband')).trim().split('\n');
}

/** How many objects of each kind the adapter has. */
export async function objects(emulator: Emulator, name: string): Promise<Record<string, number>> {
  return ((await emulator.stateOf(name)).model as { objects: Record<string, number> }).objects;
}

/** What the fabric has to count for a run of rdma-dmabuf.py, from its last line. */
export function bytesMoved(output: string): FunctionState['counters']['messages'] {
  const found = /^moved (\d+) (\d+)$/m.exec(output);
  assert.ok(found, `rdma-dmabuf.py did not say what it moved:\n${output}`);
  return { bytesWritten: Number(found[1]), bytesRead: Number(found[2]), registerReads: 0, registerWrites: 0 };
}
