/**
 * For unit tests of device code, shipped as `ghostbus/testing`: {@link TestBus} is the emulator's own bus, fabric and functions
 * with a clock that the test advances, guest memory that it reads and writes, and no QEMU.
 *
 * From `FakeBus` to `TestBus`, until FakeBus is gone:
 * - `new FakeBus(bytes)` → `new TestBus(bytes)`, and `bus.close()` in `afterEach` (it holds descriptors and memory; `npm test`
 *   closes what a test made and left);
 * - `fakeContext(name, instance)` → `bus.context(name, instance)`, `new HeapMemory(name, bytes)` → `bus.createMemory(name, bytes)`;
 * - `bus.add(name, card)` gives a {@link TestFunction}; `fn.card` is what was added, `fn.model` what it made last;
 * - `fn.model.reset(kind)` → `fn.reset(kind)`: a new model; BARs and COMMAND are set again afterwards, as Linux does;
 * - `fn.configRegisters(offset).read(…)` → `fn.readConfig(offset, sizeBytes)`, `.write(…)` → `fn.writeConfig(offset, value, sizeBytes)`;
 * - `bus.guestMemory.bytes` → `bus.guestBytes`;
 * - `fn.links` → `fn.counters.links`; a function that vanished reads all ones;
 * - a write to a peer's registers is executed when the handler or work that caused it has returned, not before;
 * - an access, `run()` or `advance()` in which a model throws throws that error, and the function is broken from then on.
 */
export { FakeBus, FakeFunction, fakeContext, HeapMemory } from './fake-bus.js';
export { ManualClock } from './manual-clock.js';
export { type LogRecord, RecordingLog } from './recording-log.js';
export { openTestBuses, TestBus } from './test-bus.js';
export { TestFunction } from './test-function.js';
