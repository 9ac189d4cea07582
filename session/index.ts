/** Guests with functions, from a program of one's own: what the command line, the matrix, the benchmarks and the tests stand on. */
export { Cleanup, withCleanup } from './cleanup.js';
export { createLog, type LogLevel, logLevels } from './log.js';
export { type Session, type SessionContext, startSession } from './session.js';
export { type EmulatorSettings, type GuestSettings, type MachineSettings, ORDINARY_GUEST } from './settings.js';
export { sessionTools } from './tools.js';
