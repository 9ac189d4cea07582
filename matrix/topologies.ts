/** The machines of the matrix. */
import type { MatrixDriver } from '../emulator/plugin/index.js';
import type { Topology } from '../qemu/index.js';

export interface TopologyPlan {
  readonly name: string;
  readonly title: string;
  readonly topology: Topology;
  /** QEMU's CPU model; both are AMD's, but only EPYC's family is one that pci_p2pdma trusts. */
  readonly cpu: 'EPYC' | 'qemu64';
  readonly iommu: 'none' | 'passthrough' | 'translating';
}

export const topologies: readonly TopologyPlan[] = [
  { name: 'host-bridge', title: 'host bridge, EPYC', topology: 'root-ports', cpu: 'EPYC', iommu: 'none' },
  { name: 'switch', title: 'one switch', topology: 'switch', cpu: 'qemu64', iommu: 'none' },
  { name: 'acs', title: 'ACS redirect, EPYC', topology: 'switch-acs', cpu: 'EPYC', iommu: 'none' },
  { name: 'acs-refused', title: 'ACS redirect, qemu64', topology: 'switch-acs', cpu: 'qemu64', iommu: 'none' },
  { name: 'refused', title: 'host bridge, qemu64', topology: 'root-ports', cpu: 'qemu64', iommu: 'none' },
  { name: 'iommu-pt', title: 'vIOMMU, iommu=pt', topology: 'root-ports', cpu: 'EPYC', iommu: 'passthrough' },
  { name: 'iommu', title: 'vIOMMU, translating', topology: 'root-ports', cpu: 'EPYC', iommu: 'translating' },
];

/** What a machine with an IOMMU wants of the kernel. */
export const iommuDriver: MatrixDriver = {
  name: 'intel-iommu',
  // vfio refuses a group whose IOMMU does not remap interrupts (vfio_iommu_type1_attach_group, iommufd_device_bind).
  needs: ['INTEL_IOMMU', 'IRQ_REMAP'],
};
