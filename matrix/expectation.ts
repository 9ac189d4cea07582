/**
 * What the kernel's source says about a cell, by rules about properties of exporter, importer, machine and kernel.
 * Paths are the kernel's, of 6.12.117 and 7.3.4; what they say of one driver stands where that driver is declared.
 */
import { type FunctionExporter, type Refusal, WITHOUT_P2PDMA } from '../emulator/plugin/index.js';
import type { Cell } from './cells.js';
import { absenceOf, type MatrixKernel, mapsAtAttach } from './kernels.js';
import { iommuDriver, type TopologyPlan } from './topologies.js';

export type Expectation =
  /** Exactly the moved bytes go between importer and exporter, none of them through guest memory. */
  | { readonly kind: 'p2p'; readonly via: 'fabric' | 'messages'; readonly because: string }
  /** No byte goes between functions; the data lie in guest memory. */
  | { readonly kind: 'staged'; readonly because: string }
  /**
   * The program's step `at` fails with `errno`, the kernel says `message` about it, and no byte goes between functions.
   */
  | {
      readonly kind: 'refused';
      readonly at: string;
      readonly errno: string;
      readonly message?: RegExp;
      readonly because: string;
    }
  | { readonly kind: 'not-applicable'; readonly because: string };

/** How a peer's BAR can be reached in a machine, as drivers/pci/p2pdma.c calc_map_type_and_dist decides it. */
type PeerRoute =
  | { readonly kind: 'bus-address' | 'host-bridge'; readonly because: string }
  | { readonly kind: 'none'; readonly because: string; readonly message?: RegExp };

/** drivers/pci/p2pdma.c pci_p2pdma_distance_many. */
const NO_PCI_DEVICE = /cannot be used for peer-to-peer DMA as it is not a PCI device/;
const NOT_WHITELISTED = /cannot be used for peer-to-peer DMA as the client and provider/;

export function peerRoute(kernel: MatrixKernel, { topology, cpu }: TopologyPlan): PeerRoute {
  if (!kernel.has('PCI_P2PDMA')) return { kind: 'none', because: WITHOUT_P2PDMA };
  if (topology === 'switch') {
    return { kind: 'bus-address', because: 'the functions share an upstream bridge without ACS redirect' };
  }
  // cpu_supports_p2pdma: AMD from family 0x17 on. QEMU's EPYC is one, its qemu64 is AMD's family 15.
  if (cpu === 'EPYC')
    return { kind: 'host-bridge', because: 'cpu_supports_p2pdma trusts an AMD host bridge of this family' };
  const because = 'no common bridge without ACS redirect; q35’s host bridge is not in pci_p2pdma_whitelist';
  return { kind: 'none', because, message: NOT_WHITELISTED };
}

/** What the kernel's source says about a cell. */
export function expectationOf(cell: Cell): Expectation {
  return (
    presenceRule(cell) ??
    exportRule(cell) ??
    importRule(cell) ??
    withoutDeviceRule(cell) ??
    doorbellRule(cell) ??
    refusingImporterRule(cell) ??
    peerRule(cell)
  );
}

const notApplicable = (because: string) => ({ kind: 'not-applicable', because }) as const;

/** What the kernel does not have at all. */
function presenceRule({ kernel, topology, exporter, importer }: Cell): Expectation | undefined {
  const needed = [importer.driver, exporter.driver, ...(topology.iommu === 'none' ? [] : [iommuDriver])];
  const because = needed.map((driver) => absenceOf(driver, kernel)).find((reason) => reason !== undefined);
  return because === undefined ? undefined : notApplicable(because);
}

/** What already the exporter makes impossible, whoever imports. */
function exportRule({ kernel, topology, exporter }: Cell): Expectation | undefined {
  const { driver, notBehindTranslation } = exporter;
  if (driver.needsIommu !== undefined && topology.iommu === 'none') return notApplicable(driver.needsIommu);
  if (notBehindTranslation !== undefined && topology.iommu === 'translating')
    return notApplicable(notBehindTranslation);
  const refusal = exporter.refusedAtExport?.(kernel);
  return refusal === undefined ? undefined : refused('export', refusal);
}

/** What already the importer makes impossible, whoever exports. */
function importRule({ topology, exporter, importer }: Cell): Expectation | undefined {
  const { driver, ringsNoDoorbell } = importer;
  if (driver.needsIommu !== undefined && topology.iommu === 'none') return notApplicable(driver.needsIommu);
  return exporter.doorbell !== undefined && ringsNoDoorbell !== undefined ? notApplicable(ringsNoDoorbell) : undefined;
}

/**
 * An importer that attaches no PCI device pins the dma-buf and asks for its one physical range
 * (drivers/iommu/iommufd/pages.c iopt_map_dmabuf).
 */
function withoutDeviceRule({ kernel, exporter, importer }: Cell): Expectation | undefined {
  if (importer.withoutDevice === undefined) return undefined;
  const at = importer.steps.map;
  const found = exporter.withoutDevice;
  // The address space is the program's own, so translated with iommu=pt too.
  if (found?.kind === 'physical-range') return { kind: 'p2p', via: 'messages', because: found.because };
  if (found?.kind === 'refused') return refused(at, found);
  const { errno, because } = importer.withoutDevice;
  return {
    ...refused(at, { errno, because: found === undefined ? because : `${found.because}; ${because}` }),
    ...(isFunctions(exporter) && exporter.reportsRoute && kernel.has('PCI_P2PDMA') ? { message: NO_PCI_DEVICE } : {}),
  };
}

const NO_DOORBELL_BEHIND_TRANSLATION =
  'QEMU maps no IOVA that leads to registers ' +
  '(hw/vfio/listener.c vfio_iommu_map_notify: “iommu map to non memory area”), so the ' +
  'function has no address for a peer’s doorbell';

/** Whoever imports a doorbell writes to its address. */
function doorbellRule({ topology, exporter }: Cell): Expectation | undefined {
  if (exporter.doorbell === undefined || topology.iommu !== 'translating') return undefined;
  return notApplicable(NO_DOORBELL_BEHIND_TRANSLATION);
}

/** What an importer takes from no exporter. */
function refusingImporterRule({ importer, size }: Cell): Expectation | undefined {
  const { offsetAlignment, refusesAll, steps } = importer;
  if (offsetAlignment !== undefined && size.offset % offsetAlignment.bytes !== 0) {
    return refused(steps.map, offsetAlignment);
  }
  return refusesAll === undefined ? undefined : refused(steps.map, refusesAll);
}

function refused(at: string, { errno, because }: Refusal) {
  return { kind: 'refused', at, errno, because } as const;
}

/** Memory of the guest is staged by nature; memory of a function goes from peer to peer, or as its driver decides. */
function peerRule({ kernel, topology, exporter, importer }: Cell): Expectation {
  if (!isFunctions(exporter)) return { kind: 'staged', because: 'the exporter’s memory is the guest’s' };
  const route = peerRoute(kernel, topology);
  if (route.kind !== 'none') return peerToPeer(topology, route.because);
  const { withoutRoute, reportsRoute } = exporter;
  const because = `${route.because}; ${withoutRoute.because}`;
  if (withoutRoute.kind === 'staged') return { kind: 'staged', because };
  // Where nothing maps at attach, a refusal to map shows when the importer needs it.
  const at = mapsAtAttach(kernel) ? importer.steps.attach : importer.steps.map;
  return {
    ...refused(at, { errno: withoutRoute.errno, because }),
    ...(reportsRoute && route.message !== undefined ? { message: route.message } : {}),
  };
}

function isFunctions(exporter: Cell['exporter']): exporter is FunctionExporter {
  return exporter.functionName !== undefined;
}

/**
 * With a translating IOMMU the importer gets an IOVA (dma_map_resource, dma_iova_link), of which only QEMU knows the
 * target.
 */
function peerToPeer(topology: TopologyPlan, because: string): Expectation {
  const translated = topology.iommu === 'translating' && topology.topology !== 'switch';
  return { kind: 'p2p', via: translated ? 'messages' : 'fabric', because };
}
