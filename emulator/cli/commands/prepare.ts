import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { prepareGuest } from '../../../session/prepared-guest.js';
import { sessionTools } from '../../../session/tools.js';
import { type ResolvedDevice, resolveDevices } from '../../device-spec.js';
import { BUILT_IN_PLUGINS } from '../../find-plugin.js';
import { deviceOption, usage } from '../options.js';
import { printProgress } from '../progress.js';

function options(yargs: Argv) {
  return yargs
    .usage(
      '$0 prepare [KERNEL…] [--device SPEC]… [--package NAME]…\n\nMakes ahead of time what `run` would make on first use.',
    )
    .positional('kernels', {
      type: 'string',
      array: true,
      default: ['latest', 'lts'],
      describe: "lts, latest or paths, as for run's --kernel",
    })
    .options({
      device: deviceOption(
        'A device of yours: name[,key=value…], as for run; may be repeated. ' +
          'What it brings into guests is made beside what ours bring',
      ),
      package: {
        alias: 'p',
        type: 'string',
        array: true,
        requiresArg: true,
        default: [] as string[],
        defaultDescription: 'none',
        description: 'As for run; may be repeated',
      },
    } as const)
    .example('$0 prepare latest', "what our devices need with Debian's latest kernel")
    .example('$0 prepare -d ./my-device', 'what a device of yours needs, too');
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

/**
 * One of each device that ships with the program, then those of `texts`. Of a device of ours that is among them, only
 * as they want it: what two variants of one device bring may not fit into one guest.
 * @throws UsageError
 */
export async function devicesToPrepare(texts: readonly string[]): Promise<ResolvedDevice[]> {
  const given = await usage(() => resolveDevices(texts));
  const modules = new Set(given.map(({ moduleUrl }) => moduleUrl));
  const ours = await resolveDevices(BUILT_IN_PLUGINS);
  return [...ours.filter(({ moduleUrl }) => !modules.has(moduleUrl)), ...given];
}

async function handler(args: Arguments): Promise<void> {
  const devices = await devicesToPrepare(args.device);
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
