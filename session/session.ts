import { fileURLToPath } from 'node:url';
import type { DeviceSpec } from '../emulator/device-spec.js';
import type { Emulator, EmulatorLog, startEmulator } from '../emulator/emulator.js';
import type { PeerRouting } from '../emulator/memory/fabric.js';
import {
  type bootGuest,
  type buildGuestPrograms,
  type ensureImage,
  type findQemu,
  type Guest,
  type GuestImage,
  type Qemu,
  userBuildTree,
} from '../qemu/index.js';
import type { Cleanup } from './cleanup.js';
import { serveControl } from './control-socket.js';
import type { EmulatorSettings, GuestSettings } from './settings.js';
import { newSocketFolder, type SocketFolder } from './socket-folder.js';

/** What a session is made with; the real ones, or a test's. */
export interface SessionTools {
  readonly startEmulator: typeof startEmulator;
  readonly findQemu: typeof findQemu;
  readonly ensureImage: typeof ensureImage;
  readonly buildGuestPrograms: typeof buildGuestPrograms;
  readonly bootGuest: typeof bootGuest;
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

/** The functions, served, and a guest that has them. */
export interface Session {
  readonly emulator: Emulator;
  readonly guest: Guest;
  readonly image: GuestImage;
  readonly qemu: Qemu;
  readonly timings: SessionTimings;
}

/** The example device's own driver; built for the guest when the device is there. */
export const EXAMPLE_DRIVER = fileURLToPath(new URL('../../plugins/example/guest-driver', import.meta.url));

/** Lets the stock habanalabs be opened where it cannot be; see docs/upstream. */
export const HABANA_WORKAROUND = fileURLToPath(new URL('../../plugins/habana/guest-workaround', import.meta.url));

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
  const { tools, progress, cleanup } = context;
  const start = performance.now();
  const emulator = await startServing(
    { ...emulatorSettings, folder: await newSocketFolder(), peerRouting: routingOf(guestSettings) },
    context,
  );
  const served = performance.now();
  const qemu = await tools.findQemu({ onProgress: progress });
  const { kernel, packages } = guestSettings;
  const image = await tools.ensureImage({ kernel, packages, onProgress: progress });
  const programs = await tools.buildGuestPrograms({
    image,
    moduleFolders: [
      ...ownDrivers(emulatorSettings.devices, guestSettings),
      ...(await workarounds(emulatorSettings.devices, guestSettings, image, progress)),
      ...guestSettings.moduleFolders,
    ],
    onProgress: progress,
  });
  const imaged = performance.now();
  const guest = await bootForCleanup(cleanup, (abort) =>
    tools.bootGuest({
      qemu,
      image,
      functions: emulator.functions.map(({ name, socketPath }) => ({ id: name, socketPath })),
      extraFiles: [...emulator.guestFiles, ...programs],
      ...machineOf(guestSettings),
      onProgress: progress,
      abort,
    }),
  );
  const timings = { serveMs: served - start, imageMs: imaged - served, bootMs: guest.bootTimeMs };
  return { emulator, guest, image, qemu, timings };
}

/** An IOMMU sees every request, except those that a switch without ACS redirection turns around before. */
export function routingOf({ viommu, topology }: Pick<GuestSettings, 'viommu' | 'topology'>): PeerRouting {
  return viommu && topology !== 'switch' ? 'iommu' : 'address';
}

/** Boots; the cleanup kills the guest, also while it boots. (By force, QEMU dies with this process.) */
async function bootForCleanup(cleanup: Cleanup, boot: (abort: AbortSignal) => Promise<Guest>): Promise<Guest> {
  const abort = new AbortController();
  const booting = boot(abort.signal);
  cleanup.add(async () => {
    abort.abort();
    const guest = await booting.catch(() => undefined);
    await guest?.kill();
  });
  return booting;
}

function ownDrivers(
  devices: readonly DeviceSpec[],
  { ownDrivers = true }: Pick<GuestSettings, 'ownDrivers'>,
): string[] {
  return ownDrivers && devices.some(({ plugin }) => plugin === 'example') ? [EXAMPLE_DRIVER] : [];
}

/** Modules of ours around defects of the guest's stock drivers. Only for kernels whose modules can be built here. */
async function workarounds(
  devices: readonly DeviceSpec[],
  settings: Pick<GuestSettings, 'workarounds'>,
  { kernel, kernelRelease }: Pick<GuestImage, 'kernel' | 'kernelRelease'>,
  progress: (text: string) => void,
): Promise<string[]> {
  const concerned = devices.some(({ plugin }) => plugin === 'habana') && hasOpenDefect(kernelRelease);
  if (!concerned) return [];
  if (kernel !== 'lts' && kernel !== 'latest' && (await userBuildTree(kernel)) === undefined) {
    progress(
      'habanalabs cannot be opened on this kernel, and no build tree of it is here for our workaround (docs/upstream)',
    );
    return [];
  }
  if (!settings.workarounds) {
    progress('habanalabs cannot be opened on this kernel, and --no-workarounds leaves it so (docs/upstream)');
    return [];
  }
  progress('habanalabs cannot be opened on this kernel; a module of ours works around it (docs/upstream)');
  return [HABANA_WORKAROUND];
}

/** Commit 641bb4394f40 came with 6.12; up to 7.3.4 habanalabs has not followed. */
export function hasOpenDefect(kernelRelease: string): boolean {
  const [major = 0, minor = 0] = kernelRelease.split(/[.-]/).map(Number);
  return major > 6 || (major === 6 && minor >= 12);
}

function machineOf(settings: GuestSettings) {
  const { topology, viommu, cpu, memMiB, smp, accel, shareDir, consoleLogPath, kernelArgs = [] } = settings;
  return {
    topology,
    viommu,
    memMiB,
    smp,
    accel,
    kernelArgs,
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
