import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { EXIT_STATUS_HELP, UsageError } from '../../../session/exit-status.js';
import { runInGuest } from '../../../session/run-in-guest.js';
import { sessionTools } from '../../../session/tools.js';
import { chosenLog, emulatorOptions, emulatorSettings, guestOptions, guestSettings } from '../options.js';
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
    } as const)
    .usage('$0 run [--device SPEC]… [options] -- CMD…\n\nBoots a guest with the functions and runs CMD in it as root.')
    .example('$0 run -d gpu -d habana -d rdma -- lspci -nn', 'what the guest sees')
    .example('$0 run -d gpu,vram=16G -d gpu -k lts -- dmesg', 'two GPUs and the LTS kernel')
    .example('$0 run -d example --share . -- sh -c "cd /mnt/share && ./test"', 'your own program')
    .example('$0 run --module ./my-driver -- modprobe my_driver', 'your own driver')
    .epilogue(EXIT_STATUS_HELP);
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

async function handler(args: Arguments): Promise<void> {
  const argv = (args.guestCommand ?? []) as readonly string[];
  if (argv.length === 0) throw new UsageError('no command: write it after --, for example: ghostbus run -- lspci -nn');
  const emulator = await emulatorSettings(args);
  const request = {
    emulator,
    guest: guestSettings(args),
    argv,
    timeoutMs: timeoutMsOf(args.timeout),
    json: args.json,
  };
  const context = {
    tools: sessionTools,
    log: chosenLog(args),
    progress: printProgress,
  };
  process.exitCode = await runInGuest(request, context, process);
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
