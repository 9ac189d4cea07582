/** Everything that a guest with some devices boots from: QEMU, images, and what the devices bring into it. */
import type { GuestFile, GuestModule } from '../emulator/plugin/index.js';
import {
  type buildGuestPrograms,
  type DebianKernel,
  ensureImage,
  type findQemu,
  type GuestImage,
  isDebianKernel,
  kernelHeaderTree,
  type Qemu,
  userBuildTree,
  type WarmStart,
} from '../qemu/index.js';
import {
  type GuestDevice,
  guestDrivers,
  guestFiles,
  guestModules,
  guestPackages,
  guestPrograms,
} from './guest-parts.js';
import type { GuestSettings } from './settings.js';

/** What it is made with; the real ones, or a test's. */
export interface GuestTools {
  readonly findQemu: typeof findQemu;
  readonly ensureImage: typeof ensureImage;
  readonly buildGuestPrograms: typeof buildGuestPrograms;
}

export interface PreparedGuest {
  readonly qemu: Qemu;
  readonly image: GuestImage;
  /** Firmware stubs, configuration, programs and kernel modules, to be laid into the guest. */
  readonly extraFiles: readonly GuestFile[];
  /** For a machine that is restored instead of booted. */
  readonly warm: WarmStart;
}

/** What of a guest's settings decides what it boots from. */
export type PreparationSettings = Pick<GuestSettings, 'kernel'> &
  Partial<
    Pick<
      GuestSettings,
      'packages' | 'documentation' | 'programs' | 'moduleFolders' | 'workarounds' | 'withoutOwnDriver'
    >
  >;

/**
 * Makes what is not in the cache yet, which takes minutes the first time. @throws HostSetupError when the host lacks
 * something
 */
export async function prepareGuest(
  devices: readonly GuestDevice[],
  settings: PreparationSettings,
  { tools, progress }: { readonly tools: GuestTools; readonly progress: (text: string) => void },
): Promise<PreparedGuest> {
  const onProgress = progress;
  const files = guestFiles(devices);
  const { packages, buildPackages } = await guestPackages(devices, settings.packages);
  const qemu = await tools.findQemu({ onProgress });
  const { kernel: choice, documentation = [] } = settings;
  const image = await tools.ensureImage({ kernel: choice, packages, documentation, onProgress });
  const kernel = { release: image.kernelRelease };
  const { withoutOwnDriver = [] } = settings;
  const withDriver = devices.filter(({ plugin }) => !withoutOwnDriver.includes(plugin.name));
  const modules = [
    ...guestModules(withDriver, kernel).filter(({ purpose }) => purpose === 'driver'),
    ...(await workarounds(guestModules(devices, kernel), settings, image, progress)),
  ];
  const built = await tools.buildGuestPrograms({
    image,
    programs: [...guestPrograms(devices), ...(settings.programs ?? [])],
    moduleFolders: [...modules.map(({ folder }) => folder), ...(settings.moduleFolders ?? [])],
    buildPackages,
    onProgress,
  });
  return { qemu, image, extraFiles: [...files, ...built], warm: { drivers: await guestDrivers(devices) } };
}

/** The headers of one of Debian's kernels, with `include/` below. @throws HostSetupError when they cannot be had */
export async function kernelHeaders(kernel: DebianKernel, progress?: (text: string) => void): Promise<string> {
  const { packages, buildPackages } = await guestPackages([]);
  const onProgress = progress ?? (() => undefined);
  const image = await ensureImage({ kernel, packages, onProgress });
  return kernelHeaderTree(image, buildPackages, onProgress);
}

/** Those that are wanted, and whose modules can be built here for this kernel; says what becomes of each. */
async function workarounds(
  modules: readonly GuestModule[],
  { workarounds = true }: PreparationSettings,
  { kernel }: Pick<GuestImage, 'kernel'>,
  progress: (text: string) => void,
): Promise<GuestModule[]> {
  const concerned = modules.filter(({ purpose }) => purpose === 'workaround');
  if (concerned.length === 0) return [];
  const canBuild = isDebianKernel(kernel) || (await userBuildTree(kernel)) !== undefined;
  for (const { why } of concerned) {
    if (!canBuild) progress(`${why}, and no build tree of it is here for the module that works around it`);
    else if (!workarounds) progress(`${why}, and --no-workarounds leaves it so`);
    else progress(`${why}; a module works around it`);
  }
  return workarounds && canBuild ? concerned : [];
}
