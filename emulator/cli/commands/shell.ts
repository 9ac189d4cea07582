import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { withCleanup } from '../../../session/cleanup.js';
import { UsageError } from '../../../session/exit-status.js';
import { emulatorFailure, startSession } from '../../../session/session.js';
import { sessionTools } from '../../../session/tools.js';
import { chosenLog, emulatorOptions, emulatorSettings, guestOptions, guestSettings } from '../options.js';
import { printProgress } from '../progress.js';

function options(yargs: Argv) {
  return guestOptions(emulatorOptions(yargs))
    .usage(
      '$0 shell [--device SPEC]… [options]\n\nBoots a guest with the functions and joins the terminal with its console.',
    )
    .example('$0 shell -d gpu -d gpu', 'look around by hand; `exit` ends the guest')
    .epilogue('Another terminal can watch with `ghostbus ctl all state`.');
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

async function handler(args: Arguments): Promise<void> {
  if (!process.stdin.isTTY) {
    throw new UsageError('shell needs a terminal; to run one command without, use: ghostbus run -- CMD');
  }
  const emulator = await emulatorSettings(args);
  const guest = guestSettings(args);
  const context = {
    tools: sessionTools,
    log: chosenLog(args),
    progress: printProgress,
  };
  await withCleanup(async (cleanup) => {
    const session = await startSession(emulator, guest, { ...context, cleanup });
    const console = session.guest.console(process.stdin, process.stdout);
    await Promise.race([console, emulatorFailure(session.emulator)]);
  });
}

export const shellCommand: CommandModule<object, Arguments> = {
  command: 'shell',
  describe: 'Boot a guest with the functions and open a console in it',
  builder: options as never,
  handler,
};
