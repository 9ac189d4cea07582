import type { FunctionState } from '../emulator/emulator.js';
import { type DemoMachine, VRAM_BYTES } from './machine.js';
import { findPatternPages, PAGE_BYTES, patternBytes } from './pattern.js';
import { inWords } from './report.js';

const VRAM_BAR = 0;
/** Rings, indirect buffers, page tables and fences of a few jobs; far less than any copy here. */
const OVERHEAD_BYTES = 1024 * 1024;

/** What `amdgpu-p2p` prints, one object a line. */
interface P2pLine {
  readonly copy?: string;
  readonly compare?: string;
  readonly engine?: string;
  readonly gpu?: string;
  readonly bytes?: number;
  readonly wrong?: number;
  readonly interrupts?: number;
  readonly ms?: number;
  readonly dmabuf?: { readonly from: string; readonly to: string };
  readonly hold?: string;
  readonly result?: string;
}

/** Each size of buffer has a pattern of its own. */
const FIRST_SEED = 0x5eed0000;

/** Whether the kernel lets the second GPU reach the first one's memory. */
export type Expectation = 'peer-to-peer' | 'staged';

/** 2, 3 and 5: a dma-buf of the first GPU, copied by the second one in both directions, and what the host saw of it. */
export async function moveDmaBuf(machine: DemoMachine, expectation: Expectation, bytes: number): Promise<void> {
  const { report, emulator, guest, sh } = machine;
  const seed = FIRST_SEED + bytes / PAGE_BYTES;
  const release = '/tmp/demo-release';
  await emulator.resetCounters();
  const lines: P2pLine[] = [];
  await guestProgram(machine, ['amdgpu-p2p', '--bytes', String(bytes), '--seed', String(seed), '--hold', release], {
    onLine: async (line) => {
      lines.push(line);
      if (line.hold === undefined) return;
      try {
        showCopies(machine, lines, bytes);
        await compareOnHost(machine, expectation, bytes, seed);
        await showCounters(machine, expectation, bytes);
      } finally {
        await sh(`touch ${release}`);
      }
    },
  });
  report.check(lines.at(-1)?.result === 'ok', 'the program in the guest is content');
  const complaints = (await guest.dmesg()).split('\n').filter((line) => /amdgpu.*(timeout|error|fail)/i.test(line));
  report.evidence(complaints);
  report.check(complaints.length === 0, 'the driver logged no error');
}

interface ProgramHandling {
  readonly onLine: (line: P2pLine) => Promise<void>;
}

/** Runs a program that prints JSON lines; lines are handled one after another. */
async function guestProgram(machine: DemoMachine, argv: readonly string[], { onLine }: ProgramHandling): Promise<void> {
  let pending = '';
  let handled = Promise.resolve();
  let errors = '';
  const { exitCode } = await machine.guest.run(argv, {
    timeoutMs: 120_000,
    onStdout: (chunk) => {
      const parts = (pending + chunk.toString()).split('\n');
      pending = parts.pop()!;
      for (const part of parts) handled = handled.then(() => onLine(JSON.parse(part) as P2pLine));
    },
    onStderr: (chunk) => {
      errors += chunk.toString();
    },
  });
  await handled;
  if (errors !== '') machine.report.evidence(errors);
  machine.report.check(exitCode === 0, `${argv[0]} exits with 0`);
}

function showCopies({ report }: DemoMachine, lines: readonly P2pLine[], bytes: number): void {
  const dmabuf = lines.find((line) => line.dmabuf !== undefined)?.dmabuf;
  if (dmabuf !== undefined) report.evidence(`dma-buf of ${dmabuf.from}, ${inWords(bytes)}, imported by ${dmabuf.to}`);
  for (const { copy, engine, interrupts, ms } of lines) {
    if (copy !== undefined)
      report.evidence(`${copy}: SDMA of ${engine}, ${ms} ms, ${interrupts} interrupts of that GPU meanwhile`);
  }
  const copies = lines.filter(({ copy }) => copy === 'pull' || copy === 'push');
  report.check(copies.length === 2, 'the second GPU’s SDMA copied it in both directions');
  report.check(
    copies.every(({ interrupts = 0 }) => interrupts > 0),
    'the fences of both copies came as interrupts',
  );
  const wrong = lines.filter((line) => line.compare !== undefined).map((line) => line.wrong);
  report.check(
    wrong.length >= 3 && wrong.every((count) => count === 0),
    `every byte is right, read in the guest through the GPUs’ mapped BARs (${wrong.length} comparisons)`,
  );
}

/** After the last copy both buffers hold the second pattern; to stage one, the driver has moved it out of VRAM. */
async function compareOnHost(
  { report, emulator }: DemoMachine,
  expectation: Expectation,
  bytes: number,
  seed: number,
): Promise<void> {
  const pattern = patternBytes(seed, 2, bytes);
  const pages = bytes / PAGE_BYTES;
  const find = (name: string) => findPatternPages(emulator, name, VRAM_BAR, VRAM_BYTES, pattern);
  const first = await find('gpu0');
  const second = await find('gpu1');
  const inMemory = (found: number, name: string) =>
    `the host finds ${found} of its ${pages} pages, byte for byte, in the memory of ${name}`;
  if (expectation === 'peer-to-peer') report.check(first === pages, inMemory(first, 'gpu0'));
  else report.check(first === 0, `the driver moved the buffer to guest RAM: ${inMemory(first, 'gpu0')}`);
  report.check(second === pages, inMemory(second, 'gpu1'));
}

async function showCounters({ report, emulator }: DemoMachine, expectation: Expectation, bytes: number): Promise<void> {
  const states = await emulator.state();
  const first = states.find(({ name }) => name === 'gpu0')!;
  const second = states.find(({ name }) => name === 'gpu1')!;
  const peer = second.counters.peers.gpu0 ?? { bytesRead: 0, bytesWritten: 0 };
  const memory = second.counters.guestMemory;
  report.evidence([
    `gpu1 from gpu0: ${peer.bytesRead} bytes read, ${peer.bytesWritten} bytes written`,
    `gpu1 from guest RAM: ${memory.bytesRead} bytes read, ${memory.bytesWritten} bytes written`,
    `interrupts sent: gpu0 ${interruptsOf(first)}, gpu1 ${interruptsOf(second)}`,
  ]);
  const others = states.flatMap(({ name, counters }) =>
    Object.entries(counters.peers)
      .filter(([target, moved]) => target !== name && moved.bytesRead + moved.bytesWritten > 0)
      .map(([target]) => `${name}>${target}`),
  );
  if (expectation === 'peer-to-peer') {
    report.check(
      peer.bytesRead === bytes && peer.bytesWritten === bytes,
      `the fabric counted exactly ${bytes} bytes in each direction between gpu1 and gpu0`,
    );
    report.check(others.join() === 'gpu1>gpu0', 'and nothing between any other pair');
    // The second GPU's own pattern came from system memory once.
    report.check(
      memory.bytesRead < bytes + OVERHEAD_BYTES && memory.bytesWritten < OVERHEAD_BYTES,
      'none of it went through guest RAM: what gpu1 read there is the pattern it was filled with, and rings',
    );
  } else {
    report.check(others.length === 0, 'the fabric counted no byte between any pair of functions');
    report.check(
      memory.bytesRead >= 2 * bytes && memory.bytesWritten >= bytes,
      'the driver staged the copies in guest RAM',
    );
  }
}

function interruptsOf(state: FunctionState): number {
  return Object.values(state.counters.interrupts).reduce((sum, count) => sum + count, 0);
}
