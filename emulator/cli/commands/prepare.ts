import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { buildGuestPrograms, ensureImage, findQemu } from '../../../qemu/index.js';
import { EXAMPLE_DRIVER } from '../../../session/session.js';
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
  const onProgress = printProgress;
  await findQemu({ onProgress });
  for (const kernel of args.kernels) {
    const image = await ensureImage({ kernel, packages: args.package, onProgress });
    await buildGuestPrograms({ image, moduleFolders: [EXAMPLE_DRIVER], onProgress });
  }
}

export const prepareCommand: CommandModule<object, Arguments> = {
  command: 'prepare [kernels..]',
  describe: 'Make QEMU and the guest images ahead of time',
  builder: options as never,
  handler,
};
