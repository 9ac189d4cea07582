import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { withCleanup } from '../../../session/cleanup.js';
import { makeAhead, type SessionTools } from '../../../session/session.js';
import { ORDINARY_GUEST } from '../../../session/settings.js';
import { sessionTools } from '../../../session/tools.js';
import { type ResolvedDevice, resolveDevices } from '../../device-spec.js';
import { BUILT_IN_PLUGINS } from '../../find-plugin.js';
import { deviceOption, usage } from '../options.js';
import { printProgress } from '../progress.js';

function options(yargs: Argv) {
  return yargs
    .usage(
      '$0 prepare [KERNEL…] [--device SPEC]… [--package NAME]…\n\nMakes ahead of time what `run` would make on first use: ' +
        'QEMU, images and programs, and for each kernel the machine that ordinary runs are restored from, ' +
        'which is booted once (topology, memory, processors and accelerator as by default).',
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
    .example('$0 prepare -d ./my-device', 'what a device of yours needs, too')
    .epilogue('Exit status: 0; otherwise as of ghostbus run, 125 when a guest does not boot here.');
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
  await prepare(args, { tools: sessionTools, progress: printProgress });
}

/** @throws UsageError, and what a run throws whose guest does not boot */
export async function prepare(
  { device, kernels, package: packages }: Pick<Arguments, 'device' | 'kernels' | 'package'>,
  context: { readonly tools: SessionTools; readonly progress: (text: string) => void },
): Promise<void> {
  const devices = await devicesToPrepare(device);
  await withCleanup(async (cleanup) => {
    for (const kernel of kernels) {
      await makeAhead(devices, { ...ORDINARY_GUEST, kernel, packages }, { ...context, cleanup });
    }
  });
}

export const prepareCommand: CommandModule<object, Arguments> = {
  command: 'prepare [kernels..]',
  describe: 'Make QEMU, guest images and the machines that runs are restored from ahead of time',
  builder: options as never,
  handler,
};
