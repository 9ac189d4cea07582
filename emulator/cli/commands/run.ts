import { randomInt } from 'node:crypto';
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { EXIT_STATUS_HELP, UsageError } from '../../../session/exit-status.js';
import { repeatRuns, SEEDS } from '../../../session/repeat-runs.js';
import { runInGuest } from '../../../session/run-in-guest.js';
import { sessionTools } from '../../../session/tools.js';
import {
  chosenLog,
  devicesOfRun,
  emulatorOptions,
  emulatorSettings,
  fileOfRun,
  guestOptions,
  guestSettings,
} from '../options.js';
import { printProgress } from '../progress.js';

function options(yargs: Argv) {
  return guestOptions(emulatorOptions(yargs))
    .options({
      timeout: {
        alias: 't',
        type: 'number',
        requiresArg: true,
        description: 'Stop CMD after this many seconds (counted from its start in the guest, not from the boot)',
      },
      json: {
        type: 'boolean',
        default: false,
        description: "Keep CMD's output and print one JSON object at the end: status, output, counters, timings",
      },
      repeat: {
        type: 'number',
        requiresArg: true,
        description:
          'Run CMD in so many fresh machines and say which did not pass, with their output; see the exit status. ' +
          "The files of --console-log and --pcap get the run's number before their ending",
      },
      jobs: {
        type: 'number',
        requiresArg: true,
        description: 'With --repeat: how many machines at the same time, each with its --mem and --smp; default 1',
      },
      'stop-on-failure': {
        type: 'boolean',
        default: false,
        description: 'With --repeat: end all at the first run that does not pass',
      },
      seed: {
        type: 'number',
        requiresArg: true,
        description:
          'What CMD finds in GHOSTBUS_SEED, for the chance that it has itself; with --repeat that of the first run, ' +
          'one more in each that follows; default then: a random one',
      },
    } as const)
    .usage('$0 run [--device SPEC]… [options] -- CMD…\n\nBoots a guest with the functions and runs CMD in it as root.')
    .example('$0 run -d gpu -d habana -d rdma -- lspci -nn', 'what the guest sees')
    .example('$0 run -d gpu,vram=16G -d gpu -k lts -- dmesg', 'two GPUs and the LTS kernel')
    .example('$0 run -d example --share . -- sh -c "cd /mnt/share && ./test"', 'your own program')
    .example('$0 run -k . --repeat 20 --stop-on-failure -- race-test', 'for git bisect run')
    .example('$0 run --module ./my-driver -- modprobe my_driver', 'your own driver')
    .epilogue(EXIT_STATUS_HELP);
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

async function handler(args: Arguments): Promise<void> {
  const argv = (args.guestCommand ?? []) as readonly string[];
  if (argv.length === 0) throw new UsageError('no command: write it after --, for example: ghostbus run -- lspci -nn');
  const repetition = repetitionOf(args);
  const emulator = await emulatorSettings(args);
  const timeoutMs = timeoutMsOf(args.timeout);
  const context = {
    tools: sessionTools,
    log: chosenLog(args),
    progress: printProgress,
  };
  if (repetition === undefined) {
    const turn = args.seed === undefined ? undefined : { run: 1, seed: seedOf(args.seed) };
    const request = { emulator, guest: guestSettings(args), argv, timeoutMs, json: args.json, turn };
    process.exitCode = await runInGuest(request, context, process);
    return;
  }
  const { consoleLog, pcap } = args;
  refuseSpecialFile('--console-log', consoleLog);
  refuseSpecialFile('--pcap', pcap);
  const guest = guestSettings({ ...args, consoleLog: consoleLog && fileOfRun(consoleLog, 1) });
  const requestOf = (run: number) => ({
    emulator: { ...emulator, devices: devicesOfRun(emulator.devices, run) },
    guest: { ...guest, warmAtOnce: true, consoleLogPath: consoleLog && fileOfRun(resolve(consoleLog), run) },
    argv,
    timeoutMs,
  });
  process.exitCode = await repeatRuns({ ...repetition, json: args.json, requestOf }, context, process);
}

/** A device or a FIFO has no sibling with a number in its name. @throws UsageError */
function refuseSpecialFile(option: string, file: string | undefined): void {
  const state = file === undefined ? undefined : statSync(file, { throwIfNoEntry: false });
  if (state === undefined || state.isFile()) return;
  throw new UsageError(`${option} ${file} is not a regular file; with --repeat each run writes one of its own`);
}

interface Repetition {
  readonly times: number;
  readonly jobs: number;
  readonly stopOnFailure: boolean;
  readonly seed: number;
}

/** Undefined when one run is asked for. @throws UsageError */
export function repetitionOf(
  args: Pick<Arguments, 'repeat' | 'jobs' | 'stopOnFailure' | 'seed'>,
): Repetition | undefined {
  const { repeat, jobs = 1, stopOnFailure, seed } = args;
  if (repeat === undefined) {
    if (args.jobs !== undefined) throw new UsageError('--jobs says how many runs of --repeat go on at the same time');
    if (stopOnFailure) throw new UsageError('--stop-on-failure ends the runs of --repeat');
    return undefined;
  }
  if (!Number.isSafeInteger(repeat) || repeat < 1) throw new UsageError('--repeat takes a whole number from 1 on');
  if (!Number.isSafeInteger(jobs) || jobs < 1) throw new UsageError('--jobs takes a whole number from 1 on');
  return { times: repeat, jobs, stopOnFailure, seed: seed === undefined ? randomInt(SEEDS) : seedOf(seed) };
}

/** @throws UsageError */
function seedOf(seed: number): number {
  if (Number.isInteger(seed) && seed >= 0 && seed < SEEDS) return seed;
  throw new UsageError(`--seed takes a whole number from 0 to ${SEEDS - 1}`);
}

/** @throws UsageError */
export function timeoutMsOf(seconds: number | undefined): number | undefined {
  if (seconds === undefined) return undefined;
  if (!(seconds > 0 && seconds < 2 ** 31 / 1000)) {
    throw new UsageError('--timeout takes a number of seconds greater than 0, for example 20');
  }
  return seconds * 1000;
}

export const runCommand: CommandModule<object, Arguments> = {
  command: 'run',
  describe: 'Boot a guest with the functions, run a command in it, exit with its status',
  builder: options as never,
  handler,
};
