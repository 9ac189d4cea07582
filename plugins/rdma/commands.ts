/** What tests and people can ask of an adapter through `ghostbus ctl`: faults to inject, state to show. */
import { command } from 'ghostbus';
import { z } from 'zod';
import { STATUS } from './firmware/command.js';
import { HEALTH_SYNDROME } from './firmware/init-segment.js';
import type { RdmaModel } from './model.js';
import { CQ_ERROR_SYNDROME } from './queues/completion-queue.js';

const commandName = z.string().default('*').describe('name of the command, for example CREATE_MKEY; * is any');
const count = z.int().min(0).default(1).describe('how many of them');
const rate = z.number().min(0).max(1).default(0);

export const commands = {
  link: command({
    description: 'pulls the cable or plugs it in',
    arguments: z.strictObject({ state: z.enum(['up', 'down'], 'must be up or down').describe('up or down') }),
    run: ({ adapter }: RdmaModel, { state }) => adapter.vport.setLinkUp(state === 'up'),
  }),
  'swallow-command': command({
    description: 'leaves the next commands of the driver unanswered',
    arguments: z.strictObject({ command: commandName, count }),
    run: ({ adapter }: RdmaModel, args) => adapter.commandInterface.swallow(args.command, args.count),
  }),
  'refuse-command': command({
    description: 'refuses the next commands of the driver',
    arguments: z.strictObject({
      command: commandName,
      status: z.int().min(0).default(STATUS.INTERNAL_ERROR).describe('status that the driver gets'),
      count,
    }),
    run: ({ adapter }: RdmaModel, args) => adapter.commandInterface.refuse(args.command, args.status, args.count),
  }),
  'answer-late': command({
    description: 'answers after all, as failed, what was left unanswered; says how many there were',
    run: ({ adapter }: RdmaModel) => adapter.commandInterface.answerSwallowed(),
  }),
  faults: command({
    description: 'shows what came of the faults that were asked for: commands by name, packets by fate',
    run: ({ adapter, wireFaults }: RdmaModel) => ({
      swallowed: Object.fromEntries(adapter.commandInterface.swallowed),
      refused: Object.fromEntries(adapter.commandInterface.refused),
      weather: { ...wireFaults.counts },
    }),
  }),
  queues: command({
    description: 'shows where every queue is at, and the last commands',
    run: ({ adapter }: RdmaModel) => ({
      eventQueues: adapter.eventQueues.inspect(),
      completionQueues: adapter.completionQueues.inspect(),
      queuePairs: adapter.queuePairs.inspect(),
      recentCommands: adapter.commandInterface.recent,
    }),
  }),
  'overrun-cq': command({
    description: 'makes a completion queue overrun',
    arguments: z.strictObject({
      cqn: z.int().min(0).default(0).describe('its number, as the command queues shows it'),
    }),
    run: ({ adapter }: RdmaModel, { cqn }) => {
      const queue = adapter.completionQueues.find(cqn);
      if (queue === undefined) throw new Error(`there is no completion queue ${cqn}; the command queues shows them`);
      queue.fail(CQ_ERROR_SYNDROME.OVERRUN);
    },
  }),
  'wire-faults': command({
    description: 'lets packets that this adapter sends meet bad weather; without arguments it ends',
    arguments: z.strictObject({
      loss: rate.describe('part of the packets that is lost, 0 to 1'),
      corruption: rate.describe('part that is damaged'),
      duplication: rate.describe('part that arrives twice'),
      reordering: rate.describe('part that is overtaken'),
      seed: z.int().min(0).default(1).describe('the same seed gives the same weather'),
    }),
    run: ({ wireFaults }: RdmaModel, { seed, ...rates }) => wireFaults.set(rates, seed),
  }),
  'fatal-health': command({
    description: 'reports a failure of the firmware',
    arguments: z.strictObject({
      syndrome: z
        .int()
        .min(0)
        .default(HEALTH_SYNDROME.FIRMWARE_ERROR)
        .describe('what failed (include/linux/mlx5/device.h MLX5_HEALTH_SYNDR_*)'),
    }),
    run: ({ initSegment }: RdmaModel, { syndrome }) => initSegment.reportHealth({ syndrome, fatal: true }),
  }),
  'stop-health-counter': command({
    description: 'stops the health counter, as firmware that hangs would',
    run: ({ initSegment }: RdmaModel) => initSegment.stopHealthCounter(),
  }),
};
