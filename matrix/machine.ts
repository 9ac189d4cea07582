/** A guest with everything that the matrix needs, set up once and used for many cells. */

import { parseDeviceSpec } from '../emulator/device-spec.js';
import type { Emulator } from '../emulator/emulator.js';
import { type AllowedComplaint, findKernelComplaints, type Guest } from '../qemu/index.js';
import { guestAddresses } from '../session/guest-addresses.js';
import { type Session, type SessionContext, startSession } from '../session/session.js';
import { type GuestSettings, ORDINARY_GUEST } from '../session/settings.js';
import { WatchedLog } from '../session/watched-log.js';
import { type Cell, devices, type GuestPlaces, type TopologyPlan } from './declaration.js';
import type { Observation, ProgramLine } from './judge.js';
import { drivers, type KernelTraits, matrixKernel } from './kernels.js';

/** A cell takes a second or two; a guest behind an IOMMU, emulated, on a busy host, takes its time. */
const CELL_TIMEOUT_MS = 600_000;
const LOG_MARK = '---- kernel log ----';

const HARMLESS: readonly AllowedComplaint[] = [
  {
    pattern: /clocksource: .*(Watchdog remote CPU \d+ read timed out|timekeeping watchdog)/,
    reason: 'kernel/time/clocksource.c compares clocks of virtual CPUs, one of which the host did not run meanwhile',
  },
];

/**
 * Loads the drivers that the kernel has ($DRIVERS), brings the ports up, gives the example devices to vfio-pci where there is an IOMMU;
 * waits for each.
 */
const SET_UP = `
has() { case " $DRIVERS " in *" $1 "*) return 0;; esac; return 1; }
until_true() { for try in $(seq 1200); do if eval "$1"; then return 0; fi; sleep 0.1; done; echo "never became true: $1" >&2; return 1; }
if has amdgpu; then modprobe amdgpu; fi
if has habanalabs; then modprobe habanalabs; fi
if has mlx5; then modprobe mlx5_ib; modprobe ib_uverbs; fi
if has amdgpu; then until_true '[ "$(ls /dev/dri 2>/dev/null | grep -c renderD)" = 2 ]'; fi
if has habanalabs; then until_true 'grep -qsx Operational /sys/class/accel/accel0/device/status'; fi
if has mlx5; then
  until_true '[ "$(ls /dev/infiniband 2>/dev/null | grep -c uverbs)" = 2 ]'
  for path in /sys/bus/pci/drivers/mlx5_core/*/net/*; do ip link set "$(basename "$path")" up; done
  until_true '[ "$(grep -ls ACTIVE /sys/class/infiniband/*/ports/1/state | wc -l)" = 2 ]'
  until_true '[ "$(grep -lsv 0000:0000:0000:0000:0000:0000:0000:0000 /sys/class/infiniband/*/ports/1/gids/0 | wc -l)" = 2 ]'
fi
if has vfio-pci && [ -n "$(ls /sys/class/iommu 2>/dev/null)" ]; then
  modprobe vfio-pci; modprobe vfio_iommu_type1
  if has iommufd; then modprobe iommufd; fi
  udevadm settle
  for id in $(grep -lx 0x6762 /sys/bus/pci/devices/*/device); do
    example=$(dirname "$id")
    if [ -e $example/driver ]; then basename $example > $example/driver/unbind; fi
    echo vfio-pci > $example/driver_override
    basename $example > /sys/bus/pci/drivers_probe
    until_true "[ -e /dev/vfio/$(basename "$(readlink $example/iommu_group)") ]"
    if has iommufd; then until_true "[ -e /dev/vfio/devices/$(ls $example/vfio-dev) ]"; fi
  done
fi
udevadm settle
for device in /sys/class/infiniband/*; do
  if [ -e $device ]; then echo "$(basename "$device") $(basename "$(readlink -f "$device/device")")"; fi
done
`;

/** One kernel in one topology. */
export class MatrixMachine {
  readonly emulator: Emulator;
  readonly guest: Guest;
  readonly kernelRelease: string;
  readonly places: GuestPlaces;
  readonly #log: WatchedLog;
  /** Lines of the kernel's log that have been looked at. */
  #logLines = 0;

  private constructor(session: Pick<Session, 'emulator' | 'guest' | 'image'>, log: WatchedLog, places: GuestPlaces) {
    this.emulator = session.emulator;
    this.guest = session.guest;
    this.kernelRelease = session.image.kernelRelease;
    this.#log = log;
    this.places = places;
  }

  /** Boots and sets up; all of it ends with the context's cleanup. @throws Error with what the guest said */
  static async start(kernel: string, plan: TopologyPlan, context: Omit<SessionContext, 'log'>): Promise<MatrixMachine> {
    const log = new WatchedLog();
    const session = await startSession(
      { devices: devices.map(parseDeviceSpec), spinUs: undefined, logLevel: 'warn', logJson: false },
      guestSettings(kernel, plan),
      { ...context, log },
    );
    return MatrixMachine.of(session, log);
  }

  /** Sets up a guest that has booted with functions of these names. @throws Error with what the guest said */
  static async of(session: Pick<Session, 'emulator' | 'guest' | 'image'>, log: WatchedLog): Promise<MatrixMachine> {
    const { emulator, guest } = session;
    const { traits } = await matrixKernel(session.image.kernel);
    const script = `set -e\nDRIVERS='${driversOf(traits).join(' ')}'\n${SET_UP}`;
    const { exitCode, stdout, stderr } = await guest.capture(['sh', '-uc', script]);
    if (exitCode !== 0) throw new Error(`the guest could not be set up: ${stderr.toString().trim()}`);
    const addresses = await guestAddresses(guest, emulator);
    const address = (name: string) => found(addresses.get(name), `no function ${name}`);
    const rdmaDevices = new Map(
      stdout
        .toString()
        .trim()
        .split('\n')
        .map((line) => line.split(' ').reverse() as [string, string]),
    );
    const machine = new MatrixMachine(session, log, {
      address,
      rdmaDevice: (name) => found(rdmaDevices.get(address(name)), `${name} has no RDMA device`),
    });
    await machine.#skipKernelLog();
    return machine;
  }

  /** Runs a cell's programs and gathers everything about it. Rejects when the guest is gone. */
  async run(cell: Cell): Promise<Observation> {
    await this.emulator.resetCounters();
    const { exporter, importer, size } = cell;
    const argv = [...exporter.command(this.places, size.exportBytes), ...importer.command(this.places, size)];
    const script = `"$@"; status=$?; echo '${LOG_MARK}'; busybox dmesg | busybox tail -n +${this.#logLines + 1}; exit $status`;
    const { exitCode, signal, stdout, stderr } = await this.guest.capture(['sh', '-c', script, 'sh', ...argv], {
      timeoutMs: CELL_TIMEOUT_MS,
    });
    const [output = '', logText = ''] = stdout.toString().split(`${LOG_MARK}\n`);
    const kernelLog = logText.split('\n').filter((line) => line !== '');
    this.#logLines += kernelLog.length;
    const states = await this.emulator.state();
    return {
      exitStatus: exitCode ?? 128 + (signal ?? 0),
      lines: parseLines(output),
      stderr: stderr.toString(),
      counters: Object.fromEntries(states.map(({ name, counters }) => [name, counters])),
      kernelLog,
      complaints: [
        ...this.#log.complaints.splice(0),
        ...findKernelComplaints(kernelLog.join('\n'), HARMLESS).map(({ line }) => line),
        ...states.flatMap(({ name, broken }) => (broken === undefined ? [] : [`${name} is broken: ${broken}`])),
      ],
    };
  }

  /** The guest's kernel log so far counts as seen. */
  async #skipKernelLog(): Promise<void> {
    this.#logLines = (await this.guest.dmesg()).split('\n').length - 1;
  }
}

function driversOf({ missing }: KernelTraits): string[] {
  return drivers.filter((name) => missing[name] === undefined);
}

/** Without our own driver: the example devices are for vfio-pci. */
function guestSettings(kernel: string, { topology, cpu, iommu }: TopologyPlan): GuestSettings {
  const kernelArgs = iommu === 'passthrough' ? ['iommu=pt'] : [];
  return { ...ORDINARY_GUEST, kernel, topology, cpu, viommu: iommu !== 'none', kernelArgs, ownDrivers: false };
}

function parseLines(output: string): ProgramLine[] {
  return output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as ProgramLine);
}

function found<T>(value: T | undefined, complaint: string): T {
  if (value === undefined) throw new Error(complaint);
  return value;
}
