/**
 * What the kernel's source says about a cell. Paths are the kernel's, of 6.12.117 and 7.3.4.
 */
import type { Cell, TopologyPlan } from './declaration.js';
import type { KernelTraits } from './kernels.js';

export type Expectation =
  /** Exactly the moved bytes go between importer and exporter, none of them through guest memory. */
  | { readonly kind: 'p2p'; readonly via: 'fabric' | 'messages'; readonly because: string }
  /** No byte goes between functions; the data lie in guest memory. */
  | { readonly kind: 'staged'; readonly because: string }
  /** The program's step `at` fails with `errno`, the kernel says `message` about it, and no byte goes between functions. */
  | {
      readonly kind: 'refused';
      readonly at: string;
      readonly errno: string;
      readonly message?: RegExp;
      readonly because: string;
    }
  | { readonly kind: 'not-applicable'; readonly because: string };

/** How a peer's BAR can be reached in a machine, as drivers/pci/p2pdma.c calc_map_type_and_dist decides it. */
export type PeerRoute =
  | { readonly kind: 'bus-address' | 'host-bridge'; readonly because: string }
  | { readonly kind: 'none'; readonly because: string; readonly message?: RegExp };

const PAGE_BYTES = 4096;
const NO_P2PDMA =
  'the kernel is built without CONFIG_PCI_P2PDMA: pci_p2pdma_distance is a stub that answers -1 (include/linux/pci-p2pdma.h)';
/** drivers/pci/p2pdma.c pci_p2pdma_distance_many. */
const NO_PCI_DEVICE = /cannot be used for peer-to-peer DMA as it is not a PCI device/;
const NOT_WHITELISTED = /cannot be used for peer-to-peer DMA as the client and provider/;

export function peerRoute(traits: KernelTraits, { topology, cpu }: TopologyPlan): PeerRoute {
  if (!traits.p2pdma) return { kind: 'none', because: NO_P2PDMA };
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
    driverRule(cell) ??
    exportRule(cell) ??
    iommufdRule(cell) ??
    doorbellRule(cell) ??
    pinnedRule(cell) ??
    peerRule(cell)
  );
}

const NO_HABANA_BEHIND_TRANSLATION =
  'gaudi_mmap remaps virt_to_phys() of what dma_alloc_coherent gave, which is a vmalloc address behind a translating IOMMU: ' +
  'the first command buffer that a program touches makes its kernel oops (habanalabs/gaudi/gaudi.c, no _HAS_DMA_MMAP_COHERENT)';
const NO_DOORBELL_BEHIND_TRANSLATION =
  'QEMU maps no IOVA that leads to registers (hw/vfio/listener.c vfio_iommu_map_notify: “iommu map to non memory area”), so the ' +
  'function has no address for a peer’s doorbell';

/** What the kernel does not have at all. */
function driverRule({ traits, topology, exporter, importer }: Cell): Expectation | undefined {
  const behindIommu = topology.iommu === 'none' ? undefined : traits.missing['intel-iommu'];
  const because = traits.missing[importer.driver] ?? traits.missing[exporter.driver] ?? behindIommu;
  return because === undefined ? undefined : { kind: 'not-applicable', because };
}

const NO_VFIO_WITHOUT_IOMMU = {
  kind: 'not-applicable',
  because: 'vfio-pci gives a device to a program only behind an IOMMU',
} as const;

/** What already the exporter makes impossible, whoever imports. */
function exportRule({ traits, topology, exporter }: Cell): Expectation | undefined {
  if (exporter.driver === 'vfio-pci' && topology.iommu === 'none') return NO_VFIO_WITHOUT_IOMMU;
  if (exporter.driver === 'habanalabs' && topology.iommu === 'translating') {
    return { kind: 'not-applicable', because: NO_HABANA_BEHIND_TRANSLATION };
  }
  if (exporter.name === 'vfio-bar' && !traits.vfioDmabuf) {
    const because =
      'vfio_pci_core_ioctl_feature does not know VFIO_DEVICE_FEATURE_DMA_BUF without CONFIG_VFIO_PCI_DMABUF (6.19)';
    return { kind: 'refused', at: 'export', errno: 'ENOTTY', because };
  }
  if (exporter.name === 'mlx5-uar' && !traits.uverbsDmabuf) {
    const because = 'ib_uverbs before 7.0 has no UVERBS_OBJECT_DMABUF (core/uverbs_ioctl.c ib_uverbs_cmd_verbs)';
    return { kind: 'refused', at: 'export', errno: 'EPROTONOSUPPORT', because };
  }
  if (exporter.name === 'mlx5-uar' && !traits.p2pdma) {
    const because = `${NO_P2PDMA}; mlx5_ib_mmap_get_pfns gives -EOPNOTSUPP without a provider (infiniband/hw/mlx5/main.c)`;
    return { kind: 'refused', at: 'export', errno: 'EOPNOTSUPP', because };
  }
  return undefined;
}

const NOT_VFIO =
  'vfio_pci_dma_buf_iommufd_map takes no dma-buf but vfio-pci’s own (drivers/vfio/pci/vfio_pci_dmabuf.c)';

/** drivers/iommu/iommufd/pages.c iopt_map_dmabuf: attach, pin, and then ask vfio-pci for the one physical range, or nobody. */
function iommufdRule({ traits, topology, exporter, importer }: Cell): Expectation | undefined {
  if (importer.name !== 'iommufd') return undefined;
  if (topology.iommu === 'none') return NO_VFIO_WITHOUT_IOMMU;
  const refused = { kind: 'refused', at: 'map', errno: 'EOPNOTSUPP' } as const;
  switch (exporter.name) {
    case 'vfio-bar':
      // The address space is the program's own, so translated with iommu=pt too.
      return {
        kind: 'p2p',
        via: 'messages',
        because: 'vfio_pci_dma_buf_iommufd_map gives the BAR’s address, which iommufd maps',
      };
    case 'mlx5-uar':
      return { ...refused, because: 'uverbs_dmabuf_pin pins nothing (infiniband/core/uverbs_std_types_dmabuf.c)' };
    case 'amdgpu-vram':
      return {
        ...refused,
        because: `amdgpu_dma_buf_pin moves it to system memory: iommufd attaches no PCI device; ${NOT_VFIO}`,
      };
    case 'habanalabs-hbm':
      return {
        ...refused,
        ...(traits.p2pdma ? { message: NO_PCI_DEVICE } : {}),
        because: `hl_dmabuf_attach finds no PCI device; ${NOT_VFIO}`,
      };
    default:
      return { ...refused, because: NOT_VFIO };
  }
}

/** Whoever imports a doorbell writes to its address. */
function doorbellRule({ topology, exporter }: Cell): Expectation | undefined {
  if (exporter.content !== 'doorbell' || topology.iommu !== 'translating') return undefined;
  return { kind: 'not-applicable', because: NO_DOORBELL_BEHIND_TRANSLATION };
}

/** infiniband/hw/mlx5/mr.c reg_user_mr_dmabuf_by_data_direct: the one path that pins wants a second function, and whole pages. */
function pinnedRule({ importer, size }: Cell): Expectation | undefined {
  if (importer.name !== 'mlx5-pinned') return undefined;
  const refused = { kind: 'refused', at: 'register' } as const;
  if (size.offset % PAGE_BYTES !== 0) {
    return { ...refused, errno: 'EOPNOTSUPP', because: 'mlx5 pins only with a page-aligned address' };
  }
  return {
    ...refused,
    errno: 'EINVAL',
    because: 'mlx5 pins only for a data-direct function, and this adapter has none',
  };
}

/** Memory of the guest is staged by nature; memory of a function goes from peer to peer, or as its driver decides. */
function peerRule({ traits, topology, exporter, importer }: Cell): Expectation {
  if (exporter.functionName === undefined) return { kind: 'staged', because: 'the exporter’s memory is the guest’s' };
  const route = peerRoute(traits, topology);
  if (route.kind !== 'none') return peerToPeer(topology, route.because);
  switch (exporter.name) {
    case 'amdgpu-vram':
      return {
        kind: 'staged',
        because: `${route.because}; amdgpu_dma_buf_attach clears peer2peer, and the buffer is moved to system memory`,
      };
    case 'habanalabs-hbm':
      return {
        kind: 'refused',
        at: mappingStep(traits, importer.name),
        errno: 'EPERM',
        ...(route.message === undefined ? {} : { message: route.message }),
        because: `${route.because}; hl_map_dmabuf gives -EPERM without peer2peer`,
      };
    case 'vfio-bar':
    case 'mlx5-uar':
      return {
        kind: 'refused',
        at: mappingStep(traits, importer.name),
        errno: 'EINVAL',
        because: `${route.because}; dma_buf_phys_vec_to_sgt gives -EINVAL (drivers/dma-buf/dma-buf-mapping.c)`,
      };
    default:
      throw new Error(`no rule for the exporter ${exporter.name}`);
  }
}

/**
 * Where an exporter's refusal to map shows, where nothing maps at attach: when the importer needs it. That is registration for mlx5
 * (mlx5_ib_init_dmabuf_mr), the first job for amdgpu (amdgpu_ttm_backend_bind).
 */
function mappingStep({ mapsAtAttach }: KernelTraits, importer: string): string {
  if (importer === 'mlx5') return 'register';
  return mapsAtAttach ? 'import' : 'job';
}

/** With a translating IOMMU the importer gets an IOVA (dma_map_resource, dma_iova_link), of which only QEMU knows the target. */
function peerToPeer(topology: TopologyPlan, because: string): Expectation {
  const translated = topology.iommu === 'translating' && topology.topology !== 'switch';
  return { kind: 'p2p', via: translated ? 'messages' : 'fabric', because };
}
