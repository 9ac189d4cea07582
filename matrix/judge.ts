/** Compares what a cell did with what was expected of it. Pure: the observation comes from `machine.ts`. */
import type { FunctionCounters, TransferCounters } from '../emulator/memory/counters.js';
import { type Cell, PAGE_BYTES, type Step, stepsOf } from './cells.js';
import type { Expectation } from './expectation.js';

/** What the importer's program prints, one object a line. */
export interface ProgramLine {
  readonly step?: string;
  readonly bytes?: number;
  readonly wrong?: number;
  readonly refused?: string;
  readonly errno?: string;
  readonly finished?: boolean;
}

/** Everything that is known of a cell that ran. */
export interface Observation {
  /** Exit status of the exporter's program, which is the importer's. */
  readonly exitStatus: number;
  readonly lines: readonly ProgramLine[];
  readonly stderr: string;
  /** Of every function, for this cell alone. */
  readonly counters: Readonly<Record<string, FunctionCounters>>;
  /** What the guest's kernel said meanwhile. */
  readonly kernelLog: readonly string[];
  /** Warnings and errors of the emulator, and of the guest's kernel, that nobody has allowed. */
  readonly complaints: readonly string[];
}

interface Verdict {
  /** Empty: the cell is as expected. */
  readonly problems: readonly string[];
  /** In a word: `P2P`, `staged`, or the errno of a refusal. */
  readonly outcome: string;
  /** What the importing function moved from and to guest memory. */
  readonly guestMemoryBytes: number;
}

/** Entries of page tables that a driver writes for each page of its own buffer and of the imported one. */
const TABLE_BYTES_PER_PAGE = 16;

/** What the importing function may move from and to guest memory when no payload goes there. */
function overheadBytes({ importer, size }: Cell): number {
  return importer.ringBytes + (size.exportBytes / PAGE_BYTES) * TABLE_BYTES_PER_PAGE;
}

export function judge(cell: Cell, expectation: Expectation, observation: Observation): Verdict {
  const problems = [...observation.complaints.map((line) => `complaint: ${line}`)];
  if (observation.exitStatus !== 0) {
    problems.push(`the programs ended with ${observation.exitStatus}: ${observation.stderr.trim()}`);
  }
  switch (expectation.kind) {
    case 'p2p':
      problems.push(...checkSteps(cell, observation), ...checkPeerBytes(cell, expectation.via, observation));
      break;
    case 'staged':
      problems.push(...checkSteps(cell, observation), ...checkStaged(cell, observation));
      break;
    case 'refused':
      problems.push(...checkRefusal(expectation, observation), ...checkNoPeers(observation));
      break;
    case 'not-applicable':
      problems.push('a cell that is not applicable was run');
  }
  const own = observation.counters[cell.importer.functionName]?.guestMemory;
  const guestMemoryBytes = own === undefined ? 0 : own.bytesRead + own.bytesWritten;
  return { problems, outcome: outcomeOf(cell, observation), guestMemoryBytes };
}

/** Names what happened, whatever was expected. */
function outcomeOf(cell: Cell, { lines, counters }: Observation): string {
  const refusal = lines.find(({ refused }) => refused !== undefined);
  if (refusal !== undefined) return refusal.errno ?? 'refused';
  if (!lines.some(({ finished }) => finished)) return 'failed';
  const own = counters[cell.importer.functionName];
  const { functionName } = cell.exporter;
  const peer = functionName === undefined ? undefined : own?.peers[functionName];
  if (own !== undefined && moved(own.messages) > 0) return 'P2P (messages)';
  return peer !== undefined && moved(peer) > 0 ? 'P2P' : 'staged';
}

function moved({ bytesRead, bytesWritten, registerWrites }: TransferCounters): number {
  return bytesRead + bytesWritten + registerWrites;
}

function total(steps: readonly Step[], key: 'reads' | 'writes' | 'rings'): number {
  return steps.reduce((sum, step) => sum + step[key], 0);
}

/** The program did what was declared, no more and no less, and every byte was right. */
function checkSteps(cell: Cell, { lines }: Observation): string[] {
  const told = lines.filter(({ step }) => step !== undefined);
  const expected = stepsOf(cell);
  const refusal = lines.find(({ refused }) => refused !== undefined);
  if (refusal !== undefined) return [`refused at ${refusal.refused} with ${refusal.errno}`];
  const problems = told
    .filter(({ wrong }) => wrong !== 0)
    .map(({ step, wrong }) => `${step}: ${wrong} bytes are wrong`);
  const names = (steps: readonly { bytes?: number; name?: string; step?: string }[]) =>
    steps.map((step) => `${step.name ?? step.step} ${step.bytes}`).join(', ');
  if (names(told) !== names(expected)) problems.push(`the steps were [${names(told)}], not [${names(expected)}]`);
  if (!lines.some(({ finished }) => finished)) problems.push('the importer did not finish');
  return problems;
}

/** Every pair of different functions between which something moved, as `gpu1>gpu0`. */
function busyPairs(counters: Observation['counters']): string[] {
  return Object.entries(counters).flatMap(([name, { peers }]) =>
    Object.entries(peers)
      .filter(([target, transfer]) => target !== name && moved(transfer) > 0)
      .map(([target]) => `${name}>${target}`),
  );
}

function checkNoPeers({ counters }: Observation): string[] {
  const pairs = busyPairs(counters);
  const problems = pairs.length === 0 ? [] : [`bytes went between functions: ${pairs.join(', ')}`];
  for (const [name, { messages }] of Object.entries(counters)) {
    if (moved(messages) > 0) problems.push(`${name} moved ${moved(messages)} bytes by DMA messages`);
  }
  return problems;
}

function checkPeerBytes(cell: Cell, via: 'fabric' | 'messages', { counters }: Observation): string[] {
  const name = cell.importer.functionName;
  const target = cell.exporter.functionName!;
  const own = counters[name]!;
  const steps = stepsOf(cell);
  const problems: string[] = [];
  const expected = { read: total(steps, 'reads'), written: total(steps, 'writes') };
  const transfer = via === 'messages' ? own.messages : own.peers[target];
  const found = { read: transfer?.bytesRead ?? 0, written: transfer?.bytesWritten ?? 0 };
  if (found.read !== expected.read || found.written !== expected.written) {
    problems.push(
      `${name} moved ${found.read} bytes from and ${found.written} to ${target} by ${via}, ` +
        `not ${expected.read} and ${expected.written}`,
    );
  }
  const rings = transfer?.registerWrites ?? 0;
  if (rings !== total(steps, 'rings')) problems.push(`${name} wrote ${rings} registers, not ${total(steps, 'rings')}`);
  const others = busyPairs(counters).filter((pair) => via === 'messages' || pair !== `${name}>${target}`);
  if (others.length > 0) problems.push(`bytes went between other functions: ${others.join(', ')}`);
  for (const [other, { messages }] of Object.entries(counters)) {
    if (moved(messages) > 0 && !(via === 'messages' && other === name)) {
      problems.push(`${other} moved ${moved(messages)} bytes by DMA messages`);
    }
  }
  const through = own.guestMemory.bytesRead + own.guestMemory.bytesWritten;
  const payload = cell.importer.ownEnd === 'guest-memory' ? total(steps, 'reads') + total(steps, 'writes') : 0;
  if (through < payload || through > payload + overheadBytes(cell)) {
    problems.push(`${name} moved ${through} bytes through guest memory, of which ${payload} are its own end’s`);
  }
  return problems;
}

function checkStaged(cell: Cell, observation: Observation): string[] {
  const problems = checkNoPeers(observation);
  const { guestMemory } = observation.counters[cell.importer.functionName]!;
  const steps = stepsOf(cell);
  if (guestMemory.bytesRead < total(steps, 'reads') || guestMemory.bytesWritten < total(steps, 'writes')) {
    const { bytesRead, bytesWritten } = guestMemory;
    problems.push(
      `${cell.importer.functionName} moved only ${bytesRead} bytes from and ${bytesWritten} to guest memory`,
    );
  }
  return problems;
}

function checkRefusal(expected: Expectation & { kind: 'refused' }, { lines, kernelLog }: Observation): string[] {
  const refusal = lines.find(({ refused }) => refused !== undefined);
  const found = refusal === undefined ? 'nothing was refused' : `refused at ${refusal.refused} with ${refusal.errno}`;
  const problems: string[] = [];
  if (refusal?.refused !== expected.at || refusal.errno !== expected.errno) {
    problems.push(`${found}, not at ${expected.at} with ${expected.errno}`);
  }
  const { message } = expected;
  if (message !== undefined && !kernelLog.some((line) => message.test(line))) {
    problems.push(`the kernel did not say ${message}`);
  }
  return problems;
}
