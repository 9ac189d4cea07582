import { readFileSync } from 'node:fs';
import yargs, { type Argv } from 'yargs';
import { ctlCommand } from './commands/ctl.js';
import { devicesCommand } from './commands/devices.js';
import { doctorCommand } from './commands/doctor.js';
import { prepareCommand } from './commands/prepare.js';
import { runCommand } from './commands/run.js';
import { serveCommand } from './commands/serve.js';
import { shellCommand } from './commands/shell.js';
import { InterruptedError, statusOfError, UsageError } from './exit-status.js';

const HELP_COLUMNS = 110;

/** Two levels up from `dist/emulator/cli`. */
function version(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

/** The command line, ready to parse. Wrong usage and failed commands reject. */
export function commandLine(argv: readonly string[]): Argv {
  return yargs([...argv])
    .scriptName('ghostbus')
    .usage('$0 COMMAND [options]\n\nEmulated PCIe functions that stock drivers accept, over vfio-user.')
    .parserConfiguration({ 'populate--': true, 'greedy-arrays': false, 'parse-numbers': true })
    .command(runCommand)
    .command(serveCommand)
    .command(shellCommand)
    .command(devicesCommand)
    .command(doctorCommand)
    .command(prepareCommand)
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
      throw error ?? new UsageError(message ?? 'wrong usage');
    });
}

const REPEATABLE = new Set(['device', 'd', 'package', 'p', 'module', 'kernels', 'args', '--', '_']);

/** Yargs turns an option that is given twice into a list; only the lists above are meant to be lists. */
function refuseRepetition(args: Record<string, unknown>): boolean {
  const twice = Object.keys(args).find((key) => Array.isArray(args[key]) && !REPEATABLE.has(key));
  if (twice !== undefined) throw new UsageError(`--${twice} is given more than once`);
  return true;
}

/** Runs one command line and resolves with the exit status. */
export async function runCli(argv: readonly string[], stderr: NodeJS.WritableStream = process.stderr): Promise<number> {
  try {
    await commandLine(argv).parseAsync();
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof UsageError) stderr.write(`ghostbus: ${error.message}\n`);
    else if (!(error instanceof InterruptedError)) stderr.write(`ghostbus: ${(error as Error).message}\n`);
    return statusOfError(error);
  }
}
