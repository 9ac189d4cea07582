/**
 * For unit tests of device code, shipped as `ghostbus/testing`: {@link TestBus} is the emulator's own bus, fabric and
 * functions with a clock that the test advances, guest memory that it reads and writes, and no QEMU.
 */
export { ManualClock } from './manual-clock.js';
export { type LogRecord, RecordingLog } from './recording-log.js';
export { openTestBuses, TestBus } from './test-bus.js';
export { TestFunction } from './test-function.js';
