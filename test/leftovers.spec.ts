/** Hooks for the specs of the whole run: what a test made and left would stay to the end. */
import { openTestBuses, type TestBus } from 'ghostbus/testing';

let before: ReadonlySet<TestBus> = new Set();

beforeEach(() => {
  before = new Set(openTestBuses());
});

afterEach(() => {
  for (const bus of openTestBuses()) if (!before.has(bus)) bus.close();
});
