import type { GuestImage } from './image.js';
import type { DeviceArgument, MachineLayout } from './topology.js';

/** How many commands may run in the guest at the same time; more wait for a free port. */
export const execPortCount = 8;

/** File descriptors that QEMU inherits; each is one end of a socket pair whose other end is ours. */
export const inheritedFds = { qmp: 3, serial: 4, agent: 5, terminal: 6, firstExecPort: 7 } as const;

/** The disk with a run's files (`makeFilesDisk`), behind the ports. */
const filesDiskFd = inheritedFds.firstExecPort + execPortCount;

/** Name of a virtio-serial port as the guest's exec program finds it. */
export function execPortName(index: number): string {
  return `ghostbus.exec.${index}`;
}

/** Ids of the ports that VSERPORT_CHANGE events name. */
export const agentPortId = 'agent';
export const terminalPortId = 'terminal';

/** The ports that programs of the guest open, each with the character device of its own name. */
export const programPorts: readonly DeviceArgument[] = [
  { driver: 'virtserialport', id: agentPortId, chardev: agentPortId, name: 'org.qemu.guest_agent.0' },
  ...Array.from({ length: execPortCount }, (_, index) => {
    const id = `exec${index}`;
    return { driver: 'virtserialport', id, chardev: id, name: execPortName(index) };
  }),
];

/** Drivers of the machine's own parts that no one needs here; each costs time at boot. */
const unneededModules: readonly string[] = ['lpc_ich', 'iTCO_wdt', 'pcspkr'];

const WATCHDOG_THRESHOLD_S = 60;
const UDEV_EVENT_TIMEOUT_S = 900;

export interface MachineOptions {
  image: GuestImage;
  layout: MachineLayout;
  accel: 'kvm' | 'tcg';
  cpu: string;
  memMiB: number;
  smp: number;
  shareDir?: string | undefined;
  /** Of the host's time stamp counter, which is the guest's under TCG. */
  counterKHz?: number | undefined;
  kernelArgs: readonly string[];
  /** Wait for the state of a machine that was saved, instead of booting. */
  incoming?: boolean;
}

/**
 * The arguments that make guest RAM a shared memfd, which vfio-user servers map: every QEMU with
 * our functions needs them.
 */
export function sharedMemoryArgs(memMiB: number): string[] {
  return ['-object', `memory-backend-memfd,id=ram,size=${memMiB}M,share=on`, '-m', `${memMiB}M`];
}

/** QEMU takes JSON for a device; that avoids its rules for commas in paths. */
export function deviceArgs(devices: readonly DeviceArgument[]): string[] {
  return devices.flatMap((device) => ['-device', JSON.stringify(device)]);
}

/** All arguments of the machine that a guest boots in. */
export function machineArgs(options: MachineOptions): string[] {
  const { accel, image, layout, shareDir } = options;
  const translated = layout.devices.some(({ driver }) => driver === 'intel-iommu');
  // Interrupt remapping under KVM needs the I/O APIC outside the kernel (QEMU hw/i386/intel_iommu.c).
  const irqchip = translated && accel === 'kvm' ? ',kernel-irqchip=split' : '';
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-name', 'ghostbus'],
    ...['-machine', `q35,memory-backend=ram,sata=off,smbus=off,vmport=off${irqchip}`],
    ...sharedMemoryArgs(options.memMiB),
    ...['-accel', accel === 'kvm' ? 'kvm' : 'tcg,thread=multi'],
    ...['-cpu', options.cpu, '-smp', String(options.smp)],
    // We watch for panics ourselves, and want all that the kernel says about it first.
    ...['-action', 'panic=none', '-device', 'pvpanic'],
    ...['-kernel', image.kernelPath, '-initrd', image.initrdPath, '-append', kernelCommandLine(options)],
    ...chardev('qmp', inheritedFds.qmp),
    ...['-mon', 'chardev=qmp,mode=control'],
    ...chardev('serial', inheritedFds.serial),
    ...['-serial', 'chardev:serial'],
    ...deviceArgs(layout.devices),
    ...disk('userland', image.userlandPath),
    ...disk('modules', image.modulesPath),
    ...disk('files', `/proc/self/fd/${filesDiskFd}`),
    ...virtioPorts(),
    ...(shareDir === undefined ? [] : share(shareDir)),
    ...['-device', 'virtio-rng-pci'],
    // A new number for each machine that is restored: the kernel then reseeds its random pool (drivers/virt/vmgenid.c).
    ...['-device', 'vmgenid,guid=auto'],
    ...(options.incoming ? ['-incoming', 'defer'] : []),
  ];
}

function kernelCommandLine(options: MachineOptions): string {
  return [
    'console=ttyS0',
    'quiet',
    // A panicked guest stands still until we have read its console.
    'panic=0',
    'random.trust_cpu=on',
    'mitigations=off',
    'audit=0',
    // A busy host makes the clock's watchdog complain about virtual CPUs that did not run for a while.
    'tsc=nowatchdog',
    // And its first calibration of that clock go wrong, once by a factor of 13; later ones correct 1 % at most
    // (arch/x86/kernel/tsc.c, tsc_refine_calibration_work).
    ...(options.accel === 'tcg' && options.counterKHz !== undefined ? [`tsc_early_khz=${options.counterKHz}`] : []),
    // It also makes the timer's interrupt come too late for a check, with a panic behind an IOMMU
    // (arch/x86/kernel/apic/io_apic.c timer_irq_works); under KVM the kernel leaves that check
    // out by itself (kvm.c paravirt_ops_setup).
    'no_timer_check',
    // And udev kills what has taken three minutes (systemd-udevd(8)): a large driver, whose probe
    // then fails with ENOMEM.
    `udev.event_timeout=${UDEV_EVENT_TIMEOUT_S}`,
    // A driver that polls a register a hundred thousand times holds its CPU for as long as the host takes to answer:
    // with the usual 10 s that is a soft lockup after 20 (kernel/watchdog.c), seen when a card was pulled out.
    `watchdog_thresh=${WATCHDOG_THRESHOLD_S}`,
    // kmod reads this one (modprobe.d(5)).
    `modprobe.blacklist=${unneededModules.join(',')}`,
    ...(options.shareDir === undefined ? [] : ['ghostbus.share=1']),
    ...options.layout.kernelArgs,
    ...options.kernelArgs,
  ].join(' ');
}

function chardev(id: string, fd: number): string[] {
  return ['-chardev', `socket,id=${id},fd=${fd}`];
}

/** In QEMU's key=value syntax a comma in a value is written twice. */
function escapeCommas(value: string): string {
  return value.replaceAll(',', ',,');
}

function disk(id: string, path: string): string[] {
  const blockdev = { driver: 'raw', 'node-name': id, 'read-only': true, file: { driver: 'file', filename: path } };
  return ['-blockdev', JSON.stringify(blockdev), '-device', `virtio-blk-pci,drive=${id}`];
}

function share(folder: string): string[] {
  const fsdev = `local,id=share,path=${escapeCommas(folder)},security_model=none,multidevs=remap`;
  return ['-fsdev', fsdev, '-device', 'virtio-9p-pci,fsdev=share,mount_tag=share'];
}

function virtioPorts(): string[] {
  const execChardevs = Array.from({ length: execPortCount }, (_, index) =>
    chardev(`exec${index}`, inheritedFds.firstExecPort + index),
  );
  return [
    ...['-device', `virtio-serial-pci,max_ports=${execPortCount + 3}`],
    ...chardev(terminalPortId, inheritedFds.terminal),
    ...['-device', `virtconsole,id=${terminalPortId},chardev=${terminalPortId}`],
    ...chardev(agentPortId, inheritedFds.agent),
    ...execChardevs.flat(),
    ...deviceArgs(programPorts),
  ];
}
