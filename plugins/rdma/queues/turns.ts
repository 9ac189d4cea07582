/** How the queues of an adapter share its time: what a turn may do, and what work costs. */
import type { SchedulerOptions, WorkUnits } from 'ghostbus/kit';

/**
 * Queues take short turns, a mebibyte moved, and every turn is a slice: a register access waits no longer than that.
 */
export const TURN_UNITS: WorkUnits = 1024 * 1024;
export const TURNS: SchedulerOptions = { sliceUnits: TURN_UNITS, turnUnits: TURN_UNITS };

/** One work request or frame beside its bytes: keys to translate, a completion, an event. 64 of them are a turn. */
export const REQUEST_UNITS: WorkUnits = TURN_UNITS / 64;
