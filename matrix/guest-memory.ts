/** The kernel's own exporters of the guest's memory; those of a function's come from its device. */
import type { Exporter, MatrixDriver } from '../emulator/plugin/index.js';

const udmabuf: MatrixDriver = { name: 'udmabuf', needs: ['UDMABUF'] };
const dmaHeap: MatrixDriver = { name: 'dma-heap', needs: ['DMABUF_HEAPS', 'DMABUF_HEAPS_SYSTEM'] };

export const guestMemoryExporters: readonly Exporter[] = [
  {
    name: 'udmabuf',
    title: 'udmabuf',
    driver: udmabuf,
    outlives: true,
    command: (_, bytes) => ['export-memory', 'udmabuf', String(bytes)],
  },
  {
    name: 'dma-heap',
    title: 'dma-heap',
    driver: dmaHeap,
    outlives: true,
    command: (_, bytes) => ['export-memory', 'heap', String(bytes)],
  },
];
