import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { prepareGuest } from '../../../session/prepared-guest.js';
import { sessionTools } from '../../../session/tools.js';
import { resolveDevices } from '../../device-spec.js';
import { BUILT_IN_PLUGINS } from '../../find-plugin.js';
import { printProgress } from '../progress.js';

function options(yargs: Argv) {
  return yargs
    .usage('$0 prepare [KERNEL…] [--package NAME]…\n\nMakes ahead of time what `run` would make on first use.')
    .positional('kernels', {
      type: 'string',
      array: true,
      default: ['latest', 'lts'],
      describe: "lts, latest or paths, as for run's --kernel",
    })
    .options({
      package: {
        alias: 'p',
        type: 'string',
        array: true,
        requiresArg: true,
        default: [] as string[],
        defaultDescription: 'none',
        description: 'As for run; may be repeated',
      },
    } as const);
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

async function handler(args: Arguments): Promise<void> {
  const devices = await resolveDevices(BUILT_IN_PLUGINS);
  for (const kernel of args.kernels) {
    await prepareGuest(devices, { kernel, packages: args.package }, { tools: sessionTools, progress: printProgress });
  }
}

export const prepareCommand: CommandModule<object, Arguments> = {
  command: 'prepare [kernels..]',
  describe: 'Make QEMU and the guest images ahead of time',
  builder: options as never,
  handler,
};
