/** What tests and people can do to an adapter through `ghostbus ctl`. */
import type { Adapter } from './adapter.js';
import type { InitSegment } from './firmware/init-segment.js';
import type { WireFaults } from './wire/faults.js';

type Arguments = Readonly<Record<string, unknown>>;

/** What the commands reach. */
interface Controlled {
  readonly adapter: Adapter;
  readonly initSegment: InitSegment;
  readonly wireFaults: WireFaults;
}

const commands: Readonly<Record<string, (model: Controlled, args: Arguments) => unknown>> = {
  /** The cable: `state` is `up` or `down`. */
  link: ({ adapter }, args) => {
    if (args.state !== 'up' && args.state !== 'down')
      throw new Error(`state must be up or down, not ${String(args.state)}`);
    adapter.vport.setLinkUp(args.state === 'up');
  },
  /** Commands of a name stay unanswered: `command` (default any), `count` (default 1). */
  'swallow-command': ({ adapter }, args) =>
    adapter.commandInterface.swallow(text(args, 'command', '*'), number(args, 'count', 1)),
  /** Commands of a name are refused: `status`, `command`, `count`. */
  'refuse-command': ({ adapter }, args) =>
    adapter.commandInterface.refuse(text(args, 'command', '*'), number(args, 'status', 1), number(args, 'count', 1)),
  /** What was swallowed is answered after all, as failed; the number of such commands. */
  'answer-late': ({ adapter }) => adapter.commandInterface.answerSwallowed(),
  /** What came of the faults that were asked for: commands by name, packets by fate. */
  faults: ({ adapter, wireFaults }) => ({
    swallowed: Object.fromEntries(adapter.commandInterface.swallowed),
    refused: Object.fromEntries(adapter.commandInterface.refused),
    weather: { ...wireFaults.counts },
  }),
  /** Where every queue is at. */
  queues: ({ adapter }) => ({
    eventQueues: adapter.eventQueues.inspect(),
    completionQueues: adapter.completionQueues.inspect(),
    queuePairs: adapter.queuePairs.inspect(),
    recentCommands: adapter.commandInterface.recent,
  }),
  /** A completion queue overruns: `cqn`. */
  'overrun-cq': ({ adapter }, args) => {
    const cqn = number(args, 'cqn', 0);
    const queue = adapter.completionQueues.find(cqn);
    if (queue === undefined) throw new Error(`there is no completion queue ${cqn}`);
    queue.fail(1);
  },
  /**
   * Packets that this adapter sends meet `loss`, `corruption`, `duplication`, `reordering` (0 to 1 each), by `seed`.
   */
  'wire-faults': ({ wireFaults }, args) =>
    wireFaults.set(
      {
        loss: rate(args, 'loss'),
        corruption: rate(args, 'corruption'),
        duplication: rate(args, 'duplication'),
        reordering: rate(args, 'reordering'),
      },
      number(args, 'seed', 1),
    ),
  /** Firmware failure: `syndrome` (default 1, include/linux/mlx5/device.h `MLX5_HEALTH_SYNDR_FW_ERR`). */
  'fatal-health': ({ initSegment }, args) =>
    initSegment.reportHealth({ syndrome: number(args, 'syndrome', 1), fatal: true }),
  'stop-health-counter': ({ initSegment }) => initSegment.stopHealthCounter(),
};

export const controlCommandNames = Object.keys(commands);

/** Runs one. Throws an Error that names the commands there are. */
export function control(model: Controlled, command: string, args: Arguments): unknown {
  const run = commands[command];
  if (run === undefined) {
    throw new Error(`unknown command ${JSON.stringify(command)}; there are: ${controlCommandNames.join(', ')}`);
  }
  return run(model, args) ?? null;
}

function number(args: Arguments, key: string, standard: number): number {
  const value = args[key] ?? standard;
  const result = Number(value);
  if (!Number.isSafeInteger(result) || result < 0)
    throw new Error(`${key} must be a whole number, not ${String(value)}`);
  return result;
}

function rate(args: Arguments, key: string): number {
  const value = Number(args[key] ?? 0);
  if (!(value >= 0 && value <= 1)) throw new Error(`${key} must lie between 0 and 1, not ${String(args[key])}`);
  return value;
}

function text(args: Arguments, key: string, standard: string): string {
  return String(args[key] ?? standard);
}
