/**
 * RDMA on the adapter against the kernel's software adapter, rdma_rxe on a dummy interface, in one guest and one run:
 * both as loopback on one device, by Debian's perftest.
 */
import type { BenchMachine, Benchmark } from 'ghostbus';

const PACKAGES = ['ibverbs-providers', 'ibverbs-utils', 'iproute2', 'perftest'];
const OPERATIONS = ['write', 'read', 'send'] as const;
/** Bytes of a message, and how many of them; few enough for rdma_rxe under TCG. */
const BANDWIDTH_SIZES = [
  [64, 2000],
  [4096, 1000],
  [65_536, 200],
  [1_048_576, 30],
  [4_194_304, 10],
] as const;
const LATENCY_SIZES = [
  [64, 1000],
  [4096, 1000],
  [65_536, 200],
] as const;
/** Which program of perftest measures what, and the column of its median (latency) or average (bandwidth). */
const BANDWIDTH = { suffix: 'bw', column: 3 } as const;
/** Half a round trip for writes and sends. */
const LATENCY = { suffix: 'lat', column: 4 } as const;
type Measure = typeof BANDWIDTH | typeof LATENCY;
/** perftest's own port. */
const PORT = 18_515;

/** A device, and the index of the GID of its interface's IPv4 address by RoCE v2. */
interface Device {
  readonly name: string;
  readonly gidIndex: number;
}

/** How much faster (bandwidth) and slower (latency) the adapter is than rdma_rxe. */
async function compare(machine: BenchMachine): Promise<void> {
  const devices = await prepareDevices(machine);
  const { accel, print } = machine;
  print(`RDMA in a guest under ${accel}, loopback: the adapter against rdma_rxe (1.00 = the same)`);
  print('   operation      size   bandwidth (higher is better)   latency (lower is better)');
  for (const operation of OPERATIONS) {
    for (const [sizeBytes, count] of BANDWIDTH_SIZES) {
      const bandwidth = await onBoth(BANDWIDTH, sizeBytes, count);
      const latencyCount = LATENCY_SIZES.find(([size]) => size === sizeBytes)?.[1];
      const latency = latencyCount === undefined ? '' : ratio(await onBoth(LATENCY, sizeBytes, latencyCount), 'µs');
      const row = [String(sizeBytes).padStart(9), ratio(bandwidth, 'MiB/s').padEnd(28), latency];
      print(`  ${operation.padStart(10)} ${row.join('   ')}`);
    }

    async function onBoth({ suffix, column }: Measure, sizeBytes: number, count: number): Promise<[number, number]> {
      const [ours, software] = devices;
      const program = `ib_${operation}_${suffix}`;
      return [
        (await perftest(machine, ours, program, sizeBytes, count))[column]!,
        (await perftest(machine, software, program, sizeBytes, count))[column]!,
      ];
    }
  }
}

function ratio([ours, software]: readonly [number, number], unit: string): string {
  return `${(ours / software).toFixed(2)} (${ours.toFixed(1)} against ${software.toFixed(1)} ${unit})`;
}

async function prepareDevices(machine: BenchMachine): Promise<readonly [Device, Device]> {
  await machine.output(
    `modprobe mlx5_ib; modprobe ib_uverbs; modprobe rdma_rxe
    for try in $(seq 600); do if [ -e /dev/infiniband/uverbs0 ]; then break; fi; sleep 0.1; done
    interface=$(basename /sys/bus/pci/drivers/mlx5_core/*/net/*)
    ip link set $interface up; ip address add 10.9.1.1/24 dev $interface
    ip link add software type dummy; ip link set software up; ip address add 10.9.2.1/24 dev software
    rdma link add rxe0 type rxe netdev software`,
  );
  const name = (await machine.output('basename /sys/bus/pci/drivers/mlx5_core/*/infiniband/*')).trim();
  return [await deviceWith(machine, name, '10.9.1.1'), await deviceWith(machine, 'rxe0', '10.9.2.1')];
}

async function deviceWith(machine: BenchMachine, name: string, ipv4: string): Promise<Device> {
  const hex = ipv4.split('.').map((part) => Number(part).toString(16).padStart(2, '0'));
  const gid = `${hex[0]}${hex[1]}:${hex[2]}${hex[3]}`;
  const script = `port=/sys/class/infiniband/${name}/ports/1
    for try in $(seq 600); do
      for file in $(grep -l 'ffff:${gid}$' $port/gids/*); do
        index=$(basename $file)
        if grep -q v2 $port/gid_attrs/types/$index && grep -q ACTIVE $port/state; then echo $index; exit 0; fi
      done
      sleep 0.1
    done; exit 1`;
  return { name, gidIndex: Number(await machine.output(script)) };
}

/** Runs server and client; the numbers of the client's row for that size. */
async function perftest(
  machine: BenchMachine,
  { name, gidIndex }: Device,
  program: string,
  sizeBytes: number,
  count: number,
): Promise<number[]> {
  const command = `timeout 120 ${program} -F -d ${name} -x ${gidIndex} -s ${sizeBytes} -n ${count} -p ${PORT}`;
  const port = PORT.toString(16).toUpperCase();
  const printed = await machine.output(
    `${command} >/tmp/server 2>&1 & server=$!
    for try in $(seq 600); do
      if grep -qh ":${port} .* 0A " /proc/net/tcp /proc/net/tcp6; then break; fi
      sleep 0.05
    done
    ${command} localhost || { cat /tmp/server; exit 1; }
    wait $server`,
  );
  const row = printed
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .find((numbers) => numbers.length >= 5 && numbers[0] === sizeBytes);
  if (row === undefined) throw new Error(`${program} printed no row for ${sizeBytes} bytes:\n${printed}`);
  return row;
}

export const bench: readonly Benchmark[] = [{ name: 'RDMA', packages: PACKAGES, measure: compare }];
