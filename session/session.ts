import type { Emulator, EmulatorLog, ServedFunction, startEmulator } from '../emulator/emulator.js';
import type { PeerRouting } from '../emulator/memory/fabric.js';
import type {
  AttachedFunction,
  BootOptions,
  bootGuest,
  ensureWarmMachine,
  Guest,
  GuestImage,
  Qemu,
} from '../qemu/index.js';
import { requireBound } from './bound-functions.js';
import type { Cleanup } from './cleanup.js';
import { serveControl } from './control-socket.js';
import { hex4 } from './guest-addresses.js';
import type { GuestDevice } from './guest-parts.js';
import type { hostCounterKHz } from './host-clock.js';
import { type GuestTools, type PreparedGuest, prepareGuest } from './prepared-guest.js';
import type { EmulatorSettings, GuestSettings } from './settings.js';
import { newSocketFolder, type SocketFolder } from './socket-folder.js';

/** What a session is made with; the real ones, or a test's. */
export interface SessionTools extends GuestTools {
  readonly startEmulator: typeof startEmulator;
  readonly bootGuest: typeof bootGuest;
  readonly ensureWarmMachine: typeof ensureWarmMachine;
  readonly hostCounterKHz: typeof hostCounterKHz;
}

export interface SessionContext {
  readonly tools: SessionTools;
  readonly log: EmulatorLog;
  /** One line of plain text for each step that takes noticeable time. */
  readonly progress: (text: string) => void;
  readonly cleanup: Cleanup;
}

export interface SessionTimings {
  readonly serveMs: number;
  readonly imageMs: number;
  readonly bootMs: number;
}

/** What one boot has that others of the machine do not, and whether all drivers must take their functions. */
export type BootRequest = Partial<BootOptions> & Pick<GuestSettings, 'expectBound'>;

/** Functions that are served, and all that a guest with them boots from. */
export interface GuestMachine {
  readonly emulator: Emulator;
  readonly image: GuestImage;
  readonly qemu: Qemu;
  readonly timings: Omit<SessionTimings, 'bootMs'>;
  /**
   * Boots a guest with the functions, which ends with the cleanup. One at a time: a function has one machine.
   * @throws DriverNotBoundError when one of its drivers has not taken a function; the guest is gone by then.
   */
  boot(more?: BootRequest): Promise<Guest>;
}

/** The functions, served, and a guest that has them. */
export interface Session extends Pick<GuestMachine, 'emulator' | 'image' | 'qemu'> {
  readonly guest: Guest;
  readonly timings: SessionTimings;
}

/** Serves the functions and a control socket beside theirs, in `folder`; all three end with the cleanup. */
export async function startServing(
  settings: EmulatorSettings & { readonly folder: SocketFolder; readonly peerRouting?: PeerRouting },
  context: Pick<SessionContext, 'log' | 'cleanup'> & { readonly tools: Pick<SessionTools, 'startEmulator'> },
): Promise<Emulator> {
  const { devices, spinUs, folder, peerRouting } = settings;
  // First of all, so that a signal while the emulator starts leaves nothing either.
  context.cleanup.add(folder.remove, folder.remove);
  const emulator = await context.tools.startEmulator({
    devices,
    log: context.log,
    socketDirectory: folder.path,
    ...(spinUs === undefined ? {} : { spinUs }),
    ...(peerRouting === undefined ? {} : { peerRouting }),
  });
  context.cleanup.add(() => emulator.stop());
  const control = await serveControl(emulator);
  context.cleanup.add(() => control.close());
  return emulator;
}

/** Serves the functions and boots a guest with them. Everything that was started ends with the cleanup. */
export async function startSession(
  emulatorSettings: EmulatorSettings,
  guestSettings: GuestSettings,
  context: SessionContext,
): Promise<Session> {
  const { boot, ...machine } = await serveMachine(emulatorSettings, guestSettings, context);
  const guest = await boot();
  return { ...machine, guest, timings: { ...machine.timings, bootMs: guest.bootTimeMs } };
}

/**
 * Serves the functions and makes what a guest with them boots from. Everything that was started ends with the cleanup.
 */
export async function serveMachine(
  emulatorSettings: EmulatorSettings,
  guestSettings: GuestSettings,
  context: SessionContext,
): Promise<GuestMachine> {
  const { tools, progress, cleanup } = context;
  const start = performance.now();
  const folder = await newSocketFolder();
  const peerRouting = guestSettings.peerRouting ?? routingOf(guestSettings);
  const serving = startServing({ ...emulatorSettings, folder, peerRouting }, context).then((emulator) => ({
    emulator,
    serveMs: performance.now() - start,
  }));
  const preparing = prepareGuest(emulatorSettings.devices, guestSettings, context).then((prepared) => ({
    prepared,
    imageMs: performance.now() - start,
  }));
  // Neither is left to itself when the other fails: what it starts is for the cleanup.
  await Promise.allSettled([serving, preparing]);
  const { emulator, serveMs } = await serving;
  const { prepared, imageMs } = await preparing;
  const { qemu, image, extraFiles } = prepared;
  const options = await machineOptions(prepared, guestSettings, tools);
  const timings = { serveMs, imageMs };
  const boot = ({ expectBound = guestSettings.expectBound ?? true, ...more }: BootRequest = {}) =>
    bootForCleanup(cleanup, more.abort, async (abort) => {
      const guest = await tools.bootGuest({
        ...options,
        functions: emulator.functions.map(attached),
        extraFiles,
        ...(guestSettings.cold
          ? {}
          : { warm: { ...prepared.warm, ...(guestSettings.warmAtOnce && { atOnce: true }) } }),
        onProgress: progress,
        ...more,
        abort,
      });
      if (expectBound) await requireBoundOrKill(guest, emulator);
      return guest;
    });
  return { emulator, image, qemu, timings, boot };
}

/**
 * Makes ahead of time all that {@link serveMachine} makes for a guest with these devices, and the machine that it is
 * restored from. @throws HostSetupError, and GuestError when that machine does not boot
 */
export async function makeAhead(
  devices: readonly GuestDevice[],
  settings: GuestSettings,
  { tools, progress, cleanup }: Omit<SessionContext, 'log'>,
): Promise<void> {
  const prepared = await prepareGuest(devices, settings, { tools, progress });
  const options = await machineOptions(prepared, settings, tools);
  const abort = new AbortController();
  const { warm } = prepared;
  const making = tools.ensureWarmMachine({ ...options, warm, onProgress: progress, abort: abort.signal });
  cleanup.add(async () => {
    abort.abort();
    await making.catch(() => undefined);
  });
  await making;
}

/** What does not depend on the functions that a guest gets, and makes the machine that it is restored from. */
async function machineOptions(
  { qemu, image }: PreparedGuest,
  settings: GuestSettings,
  tools: SessionTools,
): Promise<BootOptions> {
  const counterKHz = await tools.hostCounterKHz();
  return { qemu, image, ...(counterKHz === undefined ? {} : { counterKHz }), ...bootOptionsOf(settings) };
}

function attached({ name, identity, socketPath, barBytes }: ServedFunction): AttachedFunction {
  const ids = `0x${hex4(identity.vendorId)}:0x${hex4(identity.deviceId)}`;
  return { id: name, socketPath, barBytes, ids };
}

/** An IOMMU sees every request, except those that a switch without ACS redirection turns around before. */
export function routingOf({ viommu, topology }: Pick<GuestSettings, 'viommu' | 'topology'>): PeerRouting {
  return viommu && topology !== 'switch' ? 'iommu' : 'address';
}

async function requireBoundOrKill(guest: Guest, { functions }: Emulator): Promise<void> {
  try {
    await requireBound(guest, functions);
  } catch (error) {
    await guest.kill();
    throw error;
  }
}

/** Boots; the cleanup kills the guest, also while it boots. (By force, QEMU dies with this process.) */
async function bootForCleanup(
  cleanup: Cleanup,
  given: AbortSignal | undefined,
  boot: (abort: AbortSignal) => Promise<Guest>,
): Promise<Guest> {
  const abort = new AbortController();
  const booting = boot(given === undefined ? abort.signal : AbortSignal.any([given, abort.signal]));
  cleanup.add(async () => {
    abort.abort();
    const guest = await booting.catch(() => undefined);
    await guest?.kill();
  });
  return booting;
}

function bootOptionsOf(settings: GuestSettings): Partial<BootOptions> {
  const { topology, viommu, memMiB, smp, accel, kernelArgs = [], blockedModules = [] } = settings;
  const { cpu, shareDir, consoleLogPath, hugePages = 0 } = settings;
  return {
    ...{ topology, viommu, memMiB, smp, accel, blockedModules },
    kernelArgs: [...(hugePages > 0 ? [`hugepages=${hugePages}`] : []), ...kernelArgs],
    ...(cpu === undefined ? {} : { cpu }),
    ...(shareDir === undefined ? {} : { shareDir }),
    ...(consoleLogPath === undefined ? {} : { consoleLogPath }),
  };
}

/** Rejects when the emulator's bus thread ends, so that nobody waits for a guest whose functions are gone. */
export function emulatorFailure(emulator: Emulator): Promise<never> {
  const failure = emulator.ended.then(() => {
    throw new Error('the bus thread ended while the guest was running');
  });
  failure.catch(() => undefined);
  return failure;
}
