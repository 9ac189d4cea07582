import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, normalize, resolve } from 'node:path';
import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { type AttachFormat, attachFormats, renderAttachment } from '../../../qemu/index.js';
import { withCleanup } from '../../../session/cleanup.js';
import { CONTROL_SOCKET_NAME } from '../../../session/control-socket.js';
import { UsageError } from '../../../session/exit-status.js';
import { guestFiles } from '../../../session/guest-parts.js';
import { routingOf, startServing } from '../../../session/session.js';
import type { MachineSettings } from '../../../session/settings.js';
import { givenSocketFolder, newSocketFolder } from '../../../session/socket-folder.js';
import { type Emulator, startEmulator } from '../../emulator.js';
import type { GuestFile } from '../../plugin/index.js';
import { chosenLog, emulatorOptions, emulatorSettings, machineOptions, machineSettings } from '../options.js';
import type { ServeFacts } from '../serve-facts.js';

function options(yargs: Argv) {
  return machineOptions(emulatorOptions(yargs))
    .options({
      'socket-dir': {
        type: 'string',
        requiresArg: true,
        description: 'Folder for the sockets, private to you; default: a new one, removed at the end',
      },
      format: {
        alias: 'f',
        choices: attachFormats,
        default: 'qemu' as AttachFormat,
        description: 'Notation of the arguments that attach the functions',
      },
      'write-guest-files': {
        type: 'string',
        requiresArg: true,
        description:
          'Write the files that the drivers look for (firmware stubs) below this folder, to copy into your guest',
      },
    } as const)
    .usage('$0 serve --device SPEC… [options]\n\nServes the functions for a QEMU of your own until it gets a signal.')
    .example('$0 serve -d gpu -d rdma', 'arguments for QEMU 10.1 or newer')
    .example('$0 serve -d gpu --format libvirt', 'elements of a libvirt domain')
    .epilogue('A QEMU may end and another one attach; the functions are reset in between.');
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

async function handler(args: Arguments): Promise<void> {
  const emulatorPart = await emulatorSettings(args);
  if (emulatorPart.devices.length === 0) throw new UsageError('nothing to serve: name at least one --device');
  const machine = machineSettings(args);
  const folder = args.socketDir === undefined ? await newSocketFolder() : await givenSocketFolder(args.socketDir);
  const log = chosenLog(args);
  await withCleanup(async (cleanup) => {
    const emulator = await startServing(
      { ...emulatorPart, folder, peerRouting: routingOf(machine) },
      { tools: { startEmulator }, log, cleanup },
    );
    const files = guestFiles(emulatorPart.devices);
    if (args.writeGuestFiles !== undefined) writeGuestFiles(args.writeGuestFiles, files);
    process.stdout.write(describeServing(emulator, files, machine, args.format));
    const names = emulator.functions.map(({ name }) => name).join(', ');
    process.stderr.write(`ghostbus: serving ${names}; end with Ctrl-C\n`);
    await emulator.ended;
    throw new Error('the bus thread ended');
  });
}

function describeServing(
  { functions, socketDirectory }: Emulator,
  files: readonly GuestFile[],
  machine: MachineSettings,
  format: AttachFormat,
): string {
  const attached = functions.map(({ name, socketPath }) => ({ id: name, socketPath }));
  const text = renderAttachment(format, attached, machine);
  if (format !== 'json') return text;
  const facts: ServeFacts = {
    ...(JSON.parse(text) as Omit<ServeFacts, 'functions' | 'controlSocketPath' | 'guestFilePaths'>),
    functions: functions.map(({ name, plugin, identity, socketPath }) => ({ name, plugin, identity, socketPath })),
    controlSocketPath: join(socketDirectory, CONTROL_SOCKET_NAME),
    guestFilePaths: files.map(({ path }) => path),
  };
  return `${JSON.stringify(facts, undefined, 2)}\n`;
}

/** Lays the files below `folder` as they lie in the guest. */
function writeGuestFiles(folder: string, files: readonly GuestFile[]): void {
  for (const file of files) {
    const path = join(resolve(folder), normalize(`/${file.path}`));
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, file.contents, { mode: file.mode ?? 0o644 });
  }
  process.stderr.write(`ghostbus: wrote ${files.length} files for the guest below ${folder}\n`);
}

export const serveCommand: CommandModule<object, Arguments> = {
  command: 'serve',
  describe: 'Serve the functions for a QEMU of your own and print its arguments',
  builder: options as never,
  handler,
};
