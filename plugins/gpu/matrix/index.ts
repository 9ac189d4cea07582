/**
 * What the GPU brings to the dma-buf matrix: VRAM as an exporter, SDMA as an importer. Paths are the kernel's, below
 * drivers/gpu/drm.
 */
import { type Exporter, type Importer, type MatrixDriver, type PluginMatrix, taskArguments } from 'ghostbus';

const KIB = 1024;
/** The first exports, the second imports. Small: the matrix's guests have 2 GiB of memory. */
const INSTANCE = { vram: '256M' };
const EXPORTING = 'gpu0';
const IMPORTING = 'gpu1';

const amdgpu: MatrixDriver = {
  name: 'amdgpu',
  needs: ['DRM_AMDGPU'],
  load: 'modprobe amdgpu',
  prepare: () => `until_true '[ "$(ls /dev/dri 2>/dev/null | grep -c renderD)" = 2 ]'`,
};

const vram: Exporter = {
  name: 'amdgpu-vram',
  title: 'amdgpu VRAM',
  driver: amdgpu,
  functionName: EXPORTING,
  outlives: true,
  command: ({ address }, bytes) => ['export-vram', address(EXPORTING), String(bytes)],
  withoutRoute: {
    kind: 'staged',
    because: 'amdgpu_dma_buf_attach clears peer2peer, and the buffer is moved to system memory',
  },
  withoutDevice: {
    kind: 'no-range',
    because: 'amdgpu_dma_buf_pin moves it to system memory: iommufd attaches no PCI device',
  },
};

const sdma: Importer = {
  name: 'amdgpu',
  title: 'amdgpu (SDMA)',
  driver: amdgpu,
  functionName: IMPORTING,
  ringBytes: 48 * KIB,
  ownEnd: 'function',
  command: ({ address }, task) => [
    ...['import-gpu', address(IMPORTING), String(task.exportBytes)],
    ...taskArguments(task),
  ],
  transfers: [
    ['read', 'read'],
    ['write', 'write'],
  ],
  // The first job that uses it needs it mapped (amd/amdgpu/amdgpu_ttm.c amdgpu_ttm_backend_bind).
  steps: { attach: 'import', map: 'job' },
};

export const matrix: PluginMatrix = { instances: [INSTANCE, INSTANCE], exporters: [vram], importers: [sdma] };
