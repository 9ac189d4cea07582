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

/** The bus of the root port kept free for `device_add`. */
export const hotplugBus = 'hotplug-port';

/** q35's root bus has 32 slots; the host bridge, the ISA bridge and our own devices need some of them. */
const maxFunctions = 20;

// PCI bridges are found by ids of QEMU's own port models: hw/pci-bridge/gen_pcie_root_port.c
// (PCI_VENDOR_ID_REDHAT, 0x000c).
const rootPortIds = '1b36:000c';
/** Generous enough for a GPU's memory BAR to be plugged in later. */
const hotplugReservation = { 'mem-reserve': 64 * 2 ** 20, 'pref64-reserve': 64 * 2 ** 30 };

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
      rootPort(hotplugBus, functions.length + 1, hotplugReservation),
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
