/**
 * What the adapters bring to the dma-buf matrix: a doorbell page as an exporter, memory regions on demand and pinned as
 * importers. Paths are the kernel's, below drivers/infiniband.
 */
import {
  type Exporter,
  type GuestPlaces,
  type Importer,
  type ImportTask,
  type MatrixDriver,
  type PluginMatrix,
  taskArguments,
  WITHOUT_P2PDMA,
} from 'ghostbus';

const KIB = 1024;
const PAGE_BYTES = 4 * KIB;
/**
 * The first imports. The second, its peer on the wire, exports a doorbell page, and its other end is the guest's
 * memory.
 */
const IMPORTING = 'rdma0p0';
const PEER = 'rdma0p1';

/**
 * Loads the verbs, brings both ports up, and notes the name of each function's RDMA device, such as mlx5_0, by its PCI
 * address.
 */
const mlx5: MatrixDriver = {
  name: 'mlx5',
  // mlx5_ib_reg_user_mr_dmabuf gives -EOPNOTSUPP without the last (hw/mlx5/mr.c).
  needs: ['MLX5_CORE_EN', 'MLX5_INFINIBAND', 'INFINIBAND_USER_ACCESS', 'INFINIBAND_ON_DEMAND_PAGING'],
  load: 'modprobe mlx5_ib; modprobe ib_uverbs',
  prepare: () => `
until_true '[ "$(ls /dev/infiniband 2>/dev/null | grep -c uverbs)" = 2 ]'
for path in /sys/bus/pci/drivers/mlx5_core/*/net/*; do ip link set "$(basename "$path")" up; done
until_true '[ "$(grep -ls ACTIVE /sys/class/infiniband/*/ports/1/state | wc -l)" = 2 ]'
no_gid=0000:0000:0000:0000:0000:0000:0000:0000
until_true '[ "$(grep -lsv $no_gid /sys/class/infiniband/*/ports/1/gids/0 | wc -l)" = 2 ]'
udevadm settle
for device in /sys/class/infiniband/*; do
  note "$(basename "$(readlink -f "$device/device")")" "$(basename "$device")"
done
`,
};

function rdmaDevice({ address, noted }: GuestPlaces, functionName: string): string {
  return noted(address(functionName));
}

const doorbellPage: Exporter = {
  name: 'mlx5-uar',
  title: 'mlx5 doorbell page',
  driver: mlx5,
  functionName: PEER,
  // include/linux/mlx5/doorbell.h MLX5_BF_OFFSET.
  doorbell: { offset: 0x800, bytes: 8 },
  outlives: false,
  command: (places) => ['export-uar', rdmaDevice(places, PEER)],
  refusedAtExport: (kernel) => {
    // core/uverbs_std_types_dmabuf.c came with 7.0.
    if (!kernel.isAtLeast(7, 0)) {
      const because = 'ib_uverbs before 7.0 has no UVERBS_OBJECT_DMABUF (core/uverbs_ioctl.c ib_uverbs_cmd_verbs)';
      return { errno: 'EPROTONOSUPPORT', because };
    }
    if (kernel.has('PCI_P2PDMA')) return undefined;
    const here = 'mlx5_ib_mmap_get_pfns gives -EOPNOTSUPP without a provider (infiniband/hw/mlx5/main.c)';
    return { errno: 'EOPNOTSUPP', because: `${WITHOUT_P2PDMA}; ${here}` };
  },
  withoutRoute: {
    kind: 'refused',
    errno: 'EINVAL',
    because: 'dma_buf_phys_vec_to_sgt gives -EINVAL (drivers/dma-buf/dma-buf-mapping.c)',
  },
  withoutDevice: {
    kind: 'refused',
    errno: 'EOPNOTSUPP',
    because: 'uverbs_dmabuf_pin pins nothing (infiniband/core/uverbs_std_types_dmabuf.c)',
  },
};

const memoryRegion = {
  driver: mlx5,
  functionName: IMPORTING,
  ringBytes: 16 * KIB,
  // Its peer reads and writes the guest's memory, it does not.
  ownEnd: 'function',
  transfers: [
    ['read', 'read'],
    ['write', 'write'],
    ['send', 'read'],
    ['receive', 'write'],
    ['fetch-add', 'atomic'],
    ['compare-swap', 'atomic'],
    ['read-word', 'read-word'],
    ['atomic-answer', 'write-word'],
  ],
  // Registration attaches and maps (hw/mlx5/mr.c mlx5_ib_init_dmabuf_mr).
  steps: { attach: 'register', map: 'register' },
} as const satisfies Partial<Importer>;

const command = (places: GuestPlaces, task: ImportTask, ...flags: readonly string[]) => [
  ...['import-rdma', ...flags],
  ...[rdmaDevice(places, IMPORTING), rdmaDevice(places, PEER), ...taskArguments(task)],
];

const onDemand: Importer = {
  ...memoryRegion,
  name: 'mlx5',
  title: 'mlx5, on demand',
  command: (places, task) => command(places, task),
};

/** hw/mlx5/mr.c reg_user_mr_dmabuf_by_data_direct: the one path that pins wants a second function, and whole pages. */
const pinned: Importer = {
  ...memoryRegion,
  name: 'mlx5-pinned',
  title: 'mlx5, pinned',
  command: (places, task) => command(places, task, '--pinned'),
  offsetAlignment: { bytes: PAGE_BYTES, errno: 'EOPNOTSUPP', because: 'mlx5 pins only with a page-aligned address' },
  refusesAll: { errno: 'EINVAL', because: 'mlx5 pins only for a data-direct function, and this adapter has none' },
};

export const matrix: PluginMatrix = {
  instances: [{ functions: '2' }],
  exporters: [doorbellPage],
  importers: [onDemand, pinned],
};
