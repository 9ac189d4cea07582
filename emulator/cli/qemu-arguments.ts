/** What a QEMU that is not ours needs to attach the functions, in the notation of what starts it. */
import { deviceArgs, hotplugBus, layOutFunctions, sharedMemoryArgs } from '../../qemu/index.js';
import type { ServedFunction } from '../emulator.js';
import type { MachineSettings } from './options.js';

export const argumentFormats = ['qemu', 'libvirt', 'vng', 'json'] as const;
export type ArgumentFormat = (typeof argumentFormats)[number];

export interface ServedMachine {
  readonly functions: readonly ServedFunction[];
  readonly machine: MachineSettings;
  readonly controlSocketPath: string;
  /** Paths in the guest of the files that its drivers look for. */
  readonly guestFilePaths: readonly string[];
}

export interface QemuArguments {
  /** Guest memory as a shared memfd; `-machine` has to name it. */
  readonly memory: readonly string[];
  readonly machine: readonly string[];
  readonly devices: readonly string[];
  /** For the guest kernel's command line. */
  readonly kernelArgs: readonly string[];
}

export function qemuArguments({ functions, machine }: Pick<ServedMachine, 'functions' | 'machine'>): QemuArguments {
  const layout = layOutFunctions(
    functions.map(({ name, socketPath }) => ({ id: name, socketPath })),
    machine,
  );
  return {
    memory: sharedMemoryArgs(machine.memMiB),
    machine: ['-machine', 'q35,memory-backend=ram'],
    // The port that is kept free for `ghostbus`'s own hot-plug tests is of no use to others.
    devices: deviceArgs(layout.devices.filter(({ id }) => id !== hotplugBus)),
    kernelArgs: layout.kernelArgs,
  };
}

/** The text to print for one format; ends with a newline. */
export function formatQemuArguments(served: ServedMachine, format: ArgumentFormat): string {
  const args = qemuArguments(served);
  switch (format) {
    case 'qemu':
      return formatShell(args);
    case 'libvirt':
      return formatLibvirt(args, served.machine.memMiB);
    case 'vng':
      return formatVng(args, served.machine.memMiB);
    case 'json':
      return `${JSON.stringify({ ...served, qemuArguments: [...args.machine, ...args.memory, ...args.devices], kernelArguments: args.kernelArgs }, undefined, 2)}\n`;
  }
}

/** Quotes a word for a POSIX shell when it needs it. */
export function shellQuote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** An option and its value on one line each, so that they can be pasted behind any QEMU command. */
function formatShell(args: QemuArguments): string {
  const words = [...args.machine, ...args.memory, ...args.devices].map(shellQuote);
  const lines: string[] = [];
  for (let index = 0; index < words.length; index += 2) lines.push(`  ${words[index]} ${words[index + 1]}`);
  return `${lines.join(' \\\n')}\n${kernelNote(args, '# ')}`;
}

function kernelNote({ kernelArgs }: QemuArguments, prefix: string): string {
  return kernelArgs.length === 0 ? '' : `${prefix}the guest's kernel needs: ${kernelArgs.join(' ')}\n`;
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll("'", '&apos;');
}

/** Elements of a libvirt domain (formatdomain, "Memory Backing"; drvqemu, "Pass-through of arbitrary QEMU commands"). */
function formatLibvirt(args: QemuArguments, memMiB: number): string {
  const words = args.devices.map((word) => `    <qemu:arg value='${escapeXml(word)}'/>`);
  return [
    "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>",
    "  <!-- these elements belong into a domain with <type machine='q35'>hvm</type> -->",
    `  <memory unit='MiB'>${memMiB}</memory>`,
    '  <memoryBacking>',
    "    <source type='memfd'/>",
    "    <access mode='shared'/>",
    '  </memoryBacking>',
    '  <qemu:commandline>',
    ...words,
    '  </qemu:commandline>',
    ...(args.kernelArgs.length === 0 ? [] : [`  <!-- ${kernelNote(args, '').trim()} -->`]),
    '</domain>',
    '',
  ].join('\n');
}

/**
 * virtme-ng passes the text of --qemu-opts through a second shell, so the words stay quoted inside. Its microvm machine has no PCIe
 * ports, and with virtiofs it defines guest memory itself (virtme/commands/run.py), hence the two other options.
 */
function formatVng(args: QemuArguments, memMiB: number): string {
  const options = [
    ...args.memory.filter((_, index, words) => words[index] !== '-m' && words[index - 1] !== '-m'),
    '-machine',
    'memory-backend=ram',
    ...args.devices,
  ];
  const append = args.kernelArgs.map((word) => `--append ${shellQuote(word)} `).join('');
  return `vng --disable-microvm --force-9p --memory ${memMiB}M ${append}--qemu-opts=${shellQuote(options.map(shellQuote).join(' '))}\n`;
}
