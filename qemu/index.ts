export { buildGuestPrograms, type GuestBuildOptions } from './build-guest.js';
export { GuestError, GuestPanicError, GuestTimeoutError, HostSetupError, QemuExitError } from './errors.js';
export {
  type Accelerator,
  type BootOptions,
  bootGuest,
  type CapturedResult,
  type Guest,
  type RunOptions,
  type RunResult,
} from './guest.js';
export type { GuestFile } from './guest-file.js';
export { ensureImage, type GuestImage, type ImageOptions } from './image.js';
export { type AllowedComplaint, findKernelComplaints, type KernelComplaint } from './kernel-log.js';
export { type FindQemuOptions, findQemu, type Progress, type Qemu } from './provision.js';
export { type AttachedFunction, type Topology, topologies } from './topology.js';
