/**
 * What two engines bring to the dma-buf matrix, driven from user space: the first one's memory BAR as vfio-pci exports
 * it, the second as what iommufd imports for.
 */
import {
  type Exporter,
  type GuestPlaces,
  type Importer,
  type MatrixDriver,
  type PluginMatrix,
  taskArguments,
} from 'ghostbus';

const KIB = 1024;
const EXPORTING = 'example0';
const IMPORTING = 'example1';
/** function.ts MEMORY_BAR. */
const MEMORY_BAR = 2;

const NEEDS_IOMMU = 'vfio-pci gives a device to a program only behind an IOMMU';

/** Both functions are bound, whichever of the two drivers is used. */
const vfioPci: MatrixDriver = {
  name: 'vfio-pci',
  needs: ['VFIO_PCI', 'VFIO_GROUP', 'VFIO_CONTAINER', 'VFIO_IOMMU_TYPE1'],
  needsIommu: NEEDS_IOMMU,
  load: 'modprobe vfio-pci; modprobe vfio_iommu_type1',
  prepare: (places) => `udevadm settle\n${[EXPORTING, IMPORTING].map((name) => bind(places.address(name))).join('')}`,
};

function bind(address: string): string {
  const device = `/sys/bus/pci/devices/${address}`;
  return `
if [ -e ${device}/driver ]; then echo ${address} > ${device}/driver/unbind; fi
echo vfio-pci > ${device}/driver_override
echo ${address} > /sys/bus/pci/drivers_probe
until_true "[ -e /dev/vfio/$(basename "$(readlink ${device}/iommu_group)") ]"
`;
}

const iommufd: MatrixDriver = {
  name: 'iommufd',
  needs: ['IOMMUFD', 'VFIO_DEVICE_CDEV', 'VFIO_PCI'],
  needsIommu: NEEDS_IOMMU,
  absence: (kernel) =>
    kernel.isAtLeast(6, 19)
      ? undefined
      : `${kernel.release} maps no dma-buf: IOMMU_IOAS_MAP_FILE takes one from 6.19 on ` +
        '(drivers/iommu/iommufd/io_pagetable.c iopt_map_file_pages)',
  load: 'modprobe iommufd',
  // vfioPci has bound it.
  prepare: ({ address }: GuestPlaces) =>
    `until_true "[ -e /dev/vfio/devices/$(ls /sys/bus/pci/devices/${address(IMPORTING)}/vfio-dev) ]"`,
};

const bar: Exporter = {
  name: 'vfio-bar',
  title: 'vfio-pci BAR',
  driver: vfioPci,
  functionName: EXPORTING,
  // vfio_pci_dma_buf_cleanup, when the device is closed.
  outlives: false,
  command: ({ address }, bytes) => ['export-bar', address(EXPORTING), String(MEMORY_BAR), String(bytes)],
  refusedAtExport: (kernel) => {
    if (kernel.has('VFIO_PCI_DMABUF')) return undefined;
    const because =
      'vfio_pci_core_ioctl_feature does not know VFIO_DEVICE_FEATURE_DMA_BUF without CONFIG_VFIO_PCI_DMABUF (6.19)';
    return { errno: 'ENOTTY', because };
  },
  withoutRoute: {
    kind: 'refused',
    errno: 'EINVAL',
    because: 'dma_buf_phys_vec_to_sgt gives -EINVAL (drivers/dma-buf/dma-buf-mapping.c)',
  },
  withoutDevice: {
    kind: 'physical-range',
    because: 'vfio_pci_dma_buf_iommufd_map gives the BAR’s address, which iommufd maps',
  },
};

const engine: Importer = {
  name: 'iommufd',
  title: 'iommufd (vfio-pci)',
  driver: iommufd,
  functionName: IMPORTING,
  ringBytes: 1 * KIB,
  ownEnd: 'guest-memory',
  command: ({ address }, task) => ['import-iommufd', address(IMPORTING), ...taskArguments(task)],
  transfers: [
    ['read', 'read'],
    ['write', 'write'],
  ],
  steps: { attach: 'map', map: 'map' },
  withoutDevice: {
    errno: 'EOPNOTSUPP',
    because: 'vfio_pci_dma_buf_iommufd_map takes no dma-buf but vfio-pci’s own (drivers/vfio/pci/vfio_pci_dmabuf.c)',
  },
};

export const matrix: PluginMatrix = {
  instances: [{ memory: '128M' }, {}],
  // vfio-pci is to have the functions.
  ownDriver: false,
  exporters: [bar],
  importers: [engine],
};
