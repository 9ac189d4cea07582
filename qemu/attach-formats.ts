import { deviceArgs, sharedMemoryArgs } from './machine.js';
import { type AttachedFunction, layOutFunctions, type MachineLayout, type TopologyOptions } from './topology.js';

/** How `ghostbus serve` can say what a virtual machine of the user's own needs to attach the functions. */
export const attachFormats = ['qemu', 'libvirt', 'vng', 'json'] as const;
export type AttachFormat = (typeof attachFormats)[number];

export interface AttachOptions extends TopologyOptions {
  /** Guest RAM, which has to be a shared memfd; default 2048. */
  memMiB?: number;
  /** Path of a QEMU with vfio-user-pci, for the formats that name one. */
  qemuPath?: string;
}

/**
 * Text to paste:
 * - `qemu`: arguments for a q35 machine, for a shell.
 * - `libvirt`: parts of a domain's XML (memory backing, and QEMU arguments as libvirt has no element for vfio-user).
 * - `vng`: a virtme-ng command line; written from its documentation, not tried in this project's tests.
 * - `json`: the same facts for programs.
 */
export function renderAttachment(
  format: AttachFormat,
  functions: readonly AttachedFunction[],
  options: AttachOptions = {},
): string {
  const layout = layOutFunctions(functions, options);
  const memMiB = options.memMiB ?? 2048;
  if (format === 'qemu') return qemuText(layout, memMiB);
  if (format === 'libvirt') return libvirtText(layout, options.qemuPath);
  if (format === 'vng') return vngText(layout, memMiB, options.qemuPath);
  const facts = { machine: 'q35', sharedMemoryArgs: sharedMemoryArgs(memMiB), ...layout, functions };
  return `${JSON.stringify(facts, null, 2)}\n`;
}

/** One word of a POSIX shell. */
export function shellQuote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function qemuArguments(layout: MachineLayout, memMiB: number): string[] {
  return ['-machine', 'q35,memory-backend=ram', ...sharedMemoryArgs(memMiB), ...deviceArgs(layout.devices)];
}

function qemuText(layout: MachineLayout, memMiB: number): string {
  const words = qemuArguments(layout, memMiB).map(shellQuote);
  const lines: string[] = [];
  for (let index = 0; index < words.length; index += 2) lines.push(`${words[index]} ${words[index + 1]}`);
  return `${lines.join(' \\\n')}\n${kernelArgsNote(layout, '# ', '')}`;
}

function kernelArgsNote(layout: MachineLayout, before: string, after: string): string {
  if (layout.kernelArgs.length === 0) return '';
  return `${before}Add to the guest kernel's command line: ${layout.kernelArgs.join(' ')}${after}\n`;
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll("'", '&apos;');
}

function libvirtText(layout: MachineLayout, qemuPath: string | undefined): string {
  const args = deviceArgs(layout.devices).map((word) => `    <qemu:arg value='${escapeXml(word)}'/>`);
  const emulator = qemuPath === undefined ? '' : `  <devices><emulator>${escapeXml(qemuPath)}</emulator></devices>\n`;
  return `<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
${emulator}  <qemu:commandline>
${args.join('\n')}
  </qemu:commandline>
${kernelArgsNote(layout, '  <!-- ', ' -->')}</domain>
`;
}

function vngText(layout: MachineLayout, memMiB: number, qemuPath: string | undefined): string {
  // With 9p vng leaves guest RAM to us; with virtiofs it brings a backend of its own. microvm has no PCI.
  const words = ['vng', '--run', '--disable-microvm', '--force-9p', '--memory', `${memMiB}M`];
  if (qemuPath !== undefined) words.push('--qemu', qemuPath);
  for (const arg of layout.kernelArgs) words.push('--append', arg);
  // vng hands this to a shell once more.
  const qemuOpts = qemuArguments(layout, memMiB).map(shellQuote).join(' ');
  return `${[...words.map(shellQuote), `--qemu-opts=${shellQuote(qemuOpts)}`].join(' ')}\n`;
}
