/** What can be asked of the demo. */
import { parseArgs } from 'node:util';
import { parseByteSize } from '../emulator/plugin/options.js';
import { writableFile } from '../session/writable-file.js';
import { PAGE_BYTES } from './pattern.js';
import { inWords } from './report.js';

export const HELP = `usage: scripts/demo [--bytes SIZE] [--matrix] [--html FILE] [--cold] [--verbose]

Starts the latest stock kernel with two GPUs, habana, two adapters and example, and lets the stock drivers share dma-bufs
peer to peer: from GPU to GPU, from Gaudi and from GPU to RDMA adapter; then the LTS kernel, which stages them in system
memory. It ends with the matrix of every exporter and every importer.

  --bytes SIZE  size of the buffer between the GPUs; default 16M, at most 64M
  --matrix      the matrix in all topologies, not only in this machine: some minutes more
  --html FILE   where the matrix goes as an HTML page; default matrix.html in the current folder
  --cold        boot the guests, instead of restoring machines that were booted once
  --verbose     show the devices' log

Exit status: 0 when every claim held, 1 when one did not; otherwise as of ghostbus run.
`;
const LARGEST_BYTES = 64 * 2 ** 20;

export interface Wishes {
  readonly bytes: number;
  readonly html: string;
  readonly matrix: boolean;
  readonly cold: boolean;
  readonly verbose: boolean;
}

/** Undefined: only help was wanted. @throws Error for people */
export function readWishes(argv: readonly string[]): Wishes | undefined {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      bytes: { type: 'string', default: '16M' },
      html: { type: 'string', default: 'matrix.html' },
      matrix: { type: 'boolean', default: false },
      cold: { type: 'boolean', default: false },
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return undefined;
  const bytes = parseByteSize(values.bytes);
  if (bytes === 0 || bytes > LARGEST_BYTES || bytes % PAGE_BYTES !== 0) {
    throw new Error(`--bytes ${values.bytes}: give whole pages, at most ${inWords(LARGEST_BYTES)}`);
  }
  const { matrix, cold, verbose } = values;
  return { bytes, html: writableFile('--html', values.html), matrix, cold, verbose };
}
