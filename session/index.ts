/**
 * Guests with functions, from a program of one's own (`ghostbus/session`): what the command line, the matrix, the
 * benchmarks and the tests stand on. For a test, {@link withGuest} is all that is needed.
 */
export { type DeviceSpec, type ResolvedDevice, resolveDevices } from '../emulator/device-spec.js';
export type { Emulator, EmulatorLog, FunctionState, ServedFunction } from '../emulator/emulator.js';
export {
  type Accelerator,
  type AllowedComplaint,
  type BootOptions,
  type CapturedResult,
  findKernelComplaints,
  type Guest,
  GuestClockError,
  GuestError,
  GuestPanicError,
  GuestTimeoutError,
  HostSetupError,
  hotplugBus,
  type KernelComplaint,
  QemuExitError,
  type RunOptions,
  type RunResult,
  type Topology,
} from '../qemu/index.js';
export { DriverNotBoundError } from './bound-functions.js';
export { Cleanup, withCleanup } from './cleanup.js';
export { guestAddresses } from './guest-addresses.js';
export { assertCleanKernelLog, sh } from './guest-checks.js';
export { createLog, type LogLevel, logLevels } from './log.js';
export { kernelHeaders } from './prepared-guest.js';
export { type GuestMachine, type Session, type SessionContext, serveMachine, startSession } from './session.js';
export { type EmulatorSettings, type GuestSettings, type MachineSettings, ORDINARY_GUEST } from './settings.js';
export { sessionTools } from './tools.js';
export { WatchedLog } from './watched-log.js';
export { KERNELS, type Kernel, type MachineOptions, type TestMachine, withGuest, withMachine } from './with-machine.js';
