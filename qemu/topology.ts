/** How the functions hang below the root complex. */
export const topologies = ['root-ports', 'switch', 'switch-acs'] as const;

/**
 * - `root-ports`: each function below its own root port; peers reach each other only through the host bridge.
 * - `switch`: all below one PCIe switch without ACS; peers reach each other inside the switch.
 * - `switch-acs`: the same switch, its downstream ports redirecting peer-to-peer requests upwards (ACS RR and CR).
 */
export type Topology = (typeof topologies)[number];

/**
 * One function served over vfio-user. `id` becomes QEMU's device id: letters, digits, `-`, `_` or `.`, first a letter.
 */
export interface AttachedFunction {
  id: string;
  /** Absolute path of the UNIX socket that the function is served on. */
  socketPath: string;
  /** `0x1002:0x7af0`, as sysfs writes vendor and device: functions of one kind are plugged in one after another. */
  ids?: string;
  /** How large its memory BARs are together; default: no larger than most. */
  barBytes?: { readonly prefetchable: number; readonly other: number };
}

export interface TopologyOptions {
  topology?: Topology;
  /**
   * An Intel IOMMU in front of everything. Mappings reach the functions one page at a time, each while a virtual CPU
   * waits: right, but slow. It also makes the guest's kernel set ACS redirection on root ports.
   */
  viommu?: boolean;
}

/** One `-device`, as QEMU's JSON syntax takes it. */
export interface DeviceArgument {
  driver: string;
  id: string;
  bus?: string;
  [property: string]: unknown;
}

export interface MachineLayout {
  /** In the order that QEMU needs. */
  devices: readonly DeviceArgument[];
  /** For the guest kernel's command line. */
  kernelArgs: readonly string[];
}

/** A machine without functions, for as many as come later. */
export interface EmptyMachine extends MachineLayout {
  /** Buses to plug functions into, in this order. */
  seats: readonly string[];
  /** Further devices that it needs at boot, and lets go of afterwards. */
  placeholders: readonly DeviceArgument[];
}

/** The bus of the root port kept free for `device_add`. */
export const hotplugBus = 'hotplug-port';

/** q35's root bus has 32 slots; the host bridge, the ISA bridge and our own devices need some of them. */
const maxFunctions = 20;

// PCI bridges are found by ids of QEMU's own port models: hw/pci-bridge/gen_pcie_root_port.c
// (PCI_VENDOR_ID_REDHAT, 0x000c).
const rootPortIds = '1b36:000c';
const GIB = 2 ** 30;
/** Generous enough for a GPU's memory BAR to be plugged in later. */
const HOTPLUG_ROOM = 64 * GIB;
/** For BARs that are not prefetchable; all ports together have to fit below 4 GiB. */
const OTHER_ROOM = 32 * 2 ** 20;
/** What all ports of an empty machine may reserve together: some processors address no more than 512 GiB. */
const ALL_ROOM = 448 * GIB;
/** How many functions an empty machine is made for, so that few kinds of it are needed. */
const SEAT_COUNTS = [6, maxFunctions];

/**
 * Where every function goes.
 * @throws Error for ids that QEMU would not take, doubled ids, or more functions than the machine has slots.
 */
export function layOutFunctions(functions: readonly AttachedFunction[], options: TopologyOptions = {}): MachineLayout {
  checkFunctions(functions);
  const topology = options.topology ?? 'root-ports';
  const iommu = { driver: 'intel-iommu', id: 'viommu', 'caching-mode': true, intremap: 'on' };
  return {
    // The IOMMU has to exist before the devices that it translates for.
    devices: [
      ...(options.viommu ? [iommu] : []),
      ...ports(topology, functions.length),
      rootPort(hotplugBus, functions.length + 1, reservation(HOTPLUG_ROOM)),
      ...functions.map((fn, index) => deviceFor(fn, portName(index))),
    ],
    kernelArgs: [
      ...(options.viommu ? ['intel_iommu=on'] : []),
      // Bits from the right: SV TB RR CR; `x` leaves one as it is
      // (Documentation/admin-guide/kernel-parameters.txt, pci=config_acs).
      ...(topology === 'switch-acs' ? [`pci=config_acs=11xx@pci:${rootPortIds}`] : []),
    ],
  };
}

/**
 * The machine that {@link layOutFunctions} makes, with free seats where it has the functions; undefined when no room
 * can be reserved for functions as large as these. A switch's ports cannot be told to reserve any, so placeholders are
 * in their slots while the firmware hands out addresses.
 */
export function layOutSeats(
  functions: readonly AttachedFunction[],
  options: TopologyOptions = {},
): EmptyMachine | undefined {
  checkFunctions(functions);
  const largest = Math.max(0, ...functions.map(({ barBytes }) => barBytes?.prefetchable ?? 0));
  if (functions.some(({ barBytes }) => (barBytes?.other ?? 0) > OTHER_ROOM)) return undefined;
  const room = largest > roomOf(SEAT_COUNTS[0]!) ? 2 ** Math.ceil(Math.log2(largest)) : undefined;
  const count = room === undefined ? SEAT_COUNTS.find((most) => functions.length <= most)! : functions.length;
  const seatRoom = room ?? roomOf(count);
  if (seatRoom < largest || seatRoom * count + Math.min(HOTPLUG_ROOM, seatRoom) > ALL_ROOM) return undefined;
  const topology = options.topology ?? 'root-ports';
  const { devices, kernelArgs } = layOutFunctions([], options);
  const iommu = devices.filter(({ driver }) => driver === 'intel-iommu');
  const seats = Array.from({ length: count }, (_, index) => portName(index));
  return {
    seats,
    devices: [
      ...iommu,
      ...ports(topology, count).map((port) =>
        port.driver === 'pcie-root-port' && seats.includes(port.id) ? { ...port, ...reservation(seatRoom) } : port,
      ),
      rootPort(hotplugBus, count + 1, reservation(Math.min(HOTPLUG_ROOM, seatRoom))),
    ],
    placeholders: topology === 'switch' ? seats.map((bus) => placeholder(bus, seatRoom)) : [],
    kernelArgs,
  };
}

/** Of each port, where this many and the free one share what there is. */
function roomOf(count: number): number {
  return Math.min(HOTPLUG_ROOM, 2 ** Math.floor(Math.log2(ALL_ROOM / (count + 1))));
}

function reservation(bytes: number): Record<string, number> {
  return { 'mem-reserve': OTHER_ROOM, 'pref64-reserve': bytes };
}

/** A device with nothing but a BAR of this size (QEMU docs/specs/pci-testdev.rst). */
function placeholder(bus: string, bytes: number): DeviceArgument {
  return { driver: 'pci-testdev', id: `placeholder-${bus}`, bus, membar: bytes };
}

/** The vfio-user client device for one function. */
export function deviceFor(fn: AttachedFunction, bus: string): DeviceArgument {
  return { driver: 'vfio-user-pci', id: fn.id, bus, socket: { type: 'unix', path: fn.socketPath } };
}

function portName(index: number): string {
  return `port${index}`;
}

function rootPort(id: string, slot: number, more: Record<string, unknown> = {}): DeviceArgument {
  return { driver: 'pcie-root-port', id, bus: 'pcie.0', chassis: slot, slot, ...more };
}

function ports(topology: Topology, count: number): DeviceArgument[] {
  const names = Array.from({ length: count }, (_, index) => portName(index));
  if (topology === 'root-ports') return names.map((id, index) => rootPort(id, index + 1));
  const firstFreeSlot = count + 2;
  return [
    rootPort('switch-port', firstFreeSlot),
    { driver: 'x3130-upstream', id: 'switch', bus: 'switch-port' },
    ...names.map((id, index) => downstreamPort(topology, id, index)),
  ];
}

function downstreamPort(topology: Topology, id: string, index: number): DeviceArgument {
  const place = { id, bus: 'switch', addr: index.toString(16), chassis: index + 1, slot: index + 1 };
  // QEMU's switch ports have no ACS capability (hw/pci-bridge/xio3130_downstream.c), its root
  // port has. Below the switch's upstream port it serves as a downstream port with ACS; Linux
  // accepts the place, and lspci calls it a root port.
  if (topology === 'switch-acs') return { driver: 'pcie-root-port', ...place };
  return { driver: 'xio3130-downstream', ...place };
}

function checkFunctions(functions: readonly AttachedFunction[]): void {
  if (functions.length > maxFunctions) {
    throw new Error(`${functions.length} functions do not fit; the machine has room for ${maxFunctions}`);
  }
  const seen = new Set<string>();
  for (const { id } of functions) {
    if (!/^[A-Za-z][A-Za-z0-9._-]*$/.test(id)) throw new Error(`"${id}" cannot be a QEMU device id`);
    if (seen.has(id)) throw new Error(`two functions have the id "${id}"`);
    seen.add(id);
  }
}
