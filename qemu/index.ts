export { kvmRunsKernel } from './accel.js';
export {
  type AttachFormat,
  type AttachOptions,
  attachFormats,
  renderAttachment,
  shellQuote,
} from './attach-formats.js';
export { bootGuest, ensureWarmMachine } from './boot.js';
export { buildGuestPrograms, type GuestBuildOptions } from './build-guest.js';
export { kernelHeaderTree } from './builder-root.js';
export { cacheFolder } from './cache-entry.js';
export {
  CACHE_STATES,
  type CacheEntry,
  cacheNames,
  defaultRules,
  listCache,
  type PruneRule,
  pruneCache,
  removeRemains,
  SNAPSHOT_LIMIT_VARIABLE,
  snapshotLimit,
} from './cache-prune.js';
export { findMirror, hostPackages, mergePackages } from './debian.js';
export {
  GuestClockError,
  GuestError,
  GuestPanicError,
  GuestTimeoutError,
  HostSetupError,
  QemuExitError,
} from './errors.js';
export type {
  Accelerator,
  BootOptions,
  CapturedResult,
  Guest,
  ModuleToLoad,
  RunOptions,
  RunResult,
  WarmStart,
} from './guest.js';
export { ensureImage, type GuestImage, type ImageOptions } from './image.js';
export { type DebianKernel, isDebianKernel } from './kernel.js';
export { describeUserKernel, type UserKernel, userBuildTree } from './kernel-config.js';
export { type AllowedComplaint, findKernelComplaints, type KernelComplaint, SLOW_HOST } from './kernel-log.js';
export { type FindQemuOptions, findQemu, type Progress, type Qemu } from './provision.js';
export { type AttachedFunction, hotplugBus, type Topology, topologies } from './topology.js';
