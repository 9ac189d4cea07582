import { readFileSync } from 'node:fs';
import yargs, { type Argv } from 'yargs';
import { InterruptedError, statusOfError, UsageError } from '../../session/exit-status.js';
import { cacheCommand } from './commands/cache.js';
import { ctlCommand } from './commands/ctl.js';
import { devicesCommand } from './commands/devices.js';
import { doctorCommand } from './commands/doctor.js';
import { matrixCommand } from './commands/matrix.js';
import { prepareCommand } from './commands/prepare.js';
import { runCommand } from './commands/run.js';
import { serveCommand } from './commands/serve.js';
import { shellCommand } from './commands/shell.js';

const HELP_COLUMNS = 110;

/** Two levels up from `dist/emulator/cli`. */
function version(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

/** The command line, ready to parse. Wrong usage and failed commands reject. */
function commandLine(argv: readonly string[]): Argv {
  return yargs([...argv])
    .scriptName('ghostbus')
    .usage('$0 COMMAND [options]\n\nEmulated PCIe functions that stock drivers accept, over vfio-user.')
    .parserConfiguration({ 'greedy-arrays': false })
    .command(runCommand)
    .command(serveCommand)
    .command(shellCommand)
    .command(matrixCommand)
    .command(devicesCommand)
    .command(doctorCommand)
    .command(prepareCommand)
    .command(cacheCommand)
    .command(ctlCommand)
    .demandCommand(1, 'no command given; `ghostbus --help` lists them')
    .strict()
    .check(refuseRepetition, true)
    .example('$0 run --device gpu -- lspci -nn', 'run a command in a guest that has a GPU')
    .epilogue('`ghostbus COMMAND --help` tells more; `ghostbus doctor` says what this host lacks.')
    .version(version())
    .help()
    .alias({ help: 'h', version: 'V' })
    .wrap(HELP_COLUMNS)
    .exitProcess(false)
    .fail((message: string | null, error: Error | undefined) => {
      // Yargs throws its own errors from the parser and tells the rest as text.
      if (error === undefined || error.name === 'YError')
        throw new UsageError(error?.message ?? message ?? 'wrong usage');
      throw error;
    });
}

const REPEATABLE = new Set(['device', 'd', 'package', 'p', 'module', 'kernels', 'args', '_', 'guestCommand']);

/** Yargs turns an option that is given twice into a list; only the lists above are meant to be lists. */
function refuseRepetition(args: Record<string, unknown>): boolean {
  const twice = Object.keys(args).find((key) => Array.isArray(args[key]) && !REPEATABLE.has(key));
  if (twice !== undefined) throw new UsageError(`--${twice} is given more than once`);
  return true;
}

/**
 * Takes the guest's command, all that stands behind `--`, out of the arguments. Yargs would do it too, but reads its
 * words as numbers where it can: 0x10 would reach the guest as 16.
 */
export function splitGuestCommand(argv: readonly string[]): {
  own: readonly string[];
  guestCommand?: readonly string[];
} {
  const dashes = argv.indexOf('--');
  return dashes < 0 ? { own: argv } : { own: argv.slice(0, dashes), guestCommand: argv.slice(dashes + 1) };
}

/** Runs one command line and resolves with the exit status. */
export async function runCli(argv: readonly string[], stderr: NodeJS.WritableStream = process.stderr): Promise<number> {
  try {
    const { own, guestCommand } = splitGuestCommand(argv);
    if (guestCommand !== undefined && own[0] !== 'run')
      throw new UsageError('only `ghostbus run` takes a command after --');
    await commandLine(own).parseAsync([...own], { guestCommand });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (!(error instanceof InterruptedError)) stderr.write(`ghostbus: ${(error as Error).message}\n`);
    return statusOfError(error);
  }
}
