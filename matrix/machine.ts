/** A guest with everything that the matrix needs, set up once and used for many cells. */
import type { Emulator } from '../emulator/emulator.js';
import type { GuestPlaces, MatrixDriver } from '../emulator/plugin/index.js';
import { findKernelComplaints, type Guest } from '../qemu/index.js';
import { statusOfCommand } from '../session/exit-status.js';
import { guestAddresses } from '../session/guest-addresses.js';
import { harmlessComplaints } from '../session/guest-checks.js';
import { type Session, type SessionContext, startSession } from '../session/session.js';
import { type GuestSettings, ORDINARY_GUEST } from '../session/settings.js';
import { WatchedLog } from '../session/watched-log.js';
import { driversOf, type MatrixCatalogue } from './catalogue.js';
import type { Cell } from './cells.js';
import type { Observation, ProgramLine } from './judge.js';
import { absenceOf, type MatrixKernel, matrixKernel } from './kernels.js';
import { setUp } from './set-up.js';
import type { TopologyPlan } from './topologies.js';

/** A cell takes a second or two; a guest behind an IOMMU, emulated, on a busy host, takes its time. */
const CELL_TIMEOUT_MS = 600_000;
const LOG_MARK = '---- kernel log ----';

/** What a machine is made of. */
interface MachineChoice {
  readonly catalogue: MatrixCatalogue;
  /** As in `--kernel`. */
  readonly kernel: string;
  readonly plan: TopologyPlan;
  /** See `GuestSettings`. */
  readonly cold?: boolean;
  /** Folders of further C programs for the guest. */
  readonly programs?: readonly string[];
}

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
  static async start(choice: MachineChoice, context: Omit<SessionContext, 'log'>): Promise<MatrixMachine> {
    const log = new WatchedLog();
    const session = await startSession({ devices: choice.catalogue.devices }, guestSettings(choice), {
      ...context,
      log,
    });
    return MatrixMachine.of(session, log, choice);
  }

  /**
   * Sets up a guest that has booted with functions of these names: those of the catalogue, or as many of them as the
   * cells that are to be run and the drivers ask for. @throws Error with what the guest said
   */
  static async of(
    session: Pick<Session, 'emulator' | 'guest' | 'image'>,
    log: WatchedLog,
    { catalogue, plan }: Omit<MachineChoice, 'kernel'>,
  ): Promise<MatrixMachine> {
    const { emulator, guest } = session;
    const drivers = usableDrivers(catalogue, await matrixKernel(session.image.kernel), plan);
    const places = await setUp(guest, drivers, await guestAddresses(guest, emulator));
    const machine = new MatrixMachine(session, log, places);
    await machine.#skipKernelLog();
    return machine;
  }

  /** Runs a cell's programs and gathers everything about it. Rejects when the guest is gone. */
  async run(cell: Cell): Promise<Observation> {
    await this.emulator.resetCounters();
    const { exporter, importer, size } = cell;
    const argv = [...exporter.command(this.places, size.exportBytes), ...importer.command(this.places, size)];
    const newLog = `busybox dmesg | busybox tail -n +${this.#logLines + 1}`;
    const script = `"$@"; status=$?; echo '${LOG_MARK}'; ${newLog}; exit $status`;
    const { exitCode, signal, stdout, stderr } = await this.guest.capture(['sh', '-c', script, 'sh', ...argv], {
      timeoutMs: CELL_TIMEOUT_MS,
    });
    const [output = '', logText = ''] = stdout.toString().split(`${LOG_MARK}\n`);
    const kernelLog = logText.split('\n').filter((line) => line !== '');
    this.#logLines += kernelLog.length;
    const states = await this.emulator.state();
    return {
      exitStatus: statusOfCommand({ exitCode, signal }),
      lines: parseLines(output),
      stderr: stderr.toString(),
      counters: Object.fromEntries(states.map(({ name, counters }) => [name, counters])),
      kernelLog,
      complaints: [
        ...this.#log.complaints.splice(0),
        ...findKernelComplaints(kernelLog.join('\n'), harmlessComplaints(this.guest)).map(({ line }) => line),
        ...states.flatMap(({ name, broken }) => (broken === undefined ? [] : [`${name} is broken: ${broken}`])),
      ],
    };
  }

  /** The guest's kernel log so far counts as seen. */
  async #skipKernelLog(): Promise<void> {
    this.#logLines = (await this.guest.dmesg()).split('\n').length - 1;
  }
}

function usableDrivers(catalogue: MatrixCatalogue, kernel: MatrixKernel, { iommu }: TopologyPlan): MatrixDriver[] {
  return driversOf(catalogue).filter(
    (driver) => absenceOf(driver, kernel) === undefined && (driver.needsIommu === undefined || iommu !== 'none'),
  );
}

function guestSettings({ kernel, plan, catalogue, cold = false, programs = [] }: MachineChoice): GuestSettings {
  const { topology, cpu, iommu } = plan;
  const kernelArgs = iommu === 'passthrough' ? ['iommu=pt'] : [];
  const { withoutOwnDriver } = catalogue;
  const viommu = iommu !== 'none';
  return { ...ORDINARY_GUEST, kernel, topology, cpu, viommu, kernelArgs, withoutOwnDriver, cold, programs };
}

function parseLines(output: string): ProgramLine[] {
  return output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as ProgramLine);
}
