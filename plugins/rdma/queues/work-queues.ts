/**
 * Everything that a doorbell can name: queue pairs, and the send and receive queues of the netdev, in one space of
 * numbers.
 */
import type { ObjectTable } from '../firmware/object-table.js';

export interface WorkQueue {
  /** The driver rang its doorbell. */
  ring(): void;
  /** The driver destroyed it, or the adapter stops: nothing of it runs any more, and its memory is given back. */
  release(): void;
}

export type WorkQueues = ObjectTable<WorkQueue>;
