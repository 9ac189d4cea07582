/** A shelf: memory behind a BAR, a register with its identity, and one with a label that `ghostbus ctl` sets. */
import {
  byteSize,
  type CreateContext,
  command,
  definePlugin,
  type Exporter,
  type FunctionModel,
  type FunctionPort,
  type Log,
  type MatrixDriver,
  type MemoryRegion,
  type PcieFunction,
  packageFile,
  pciExpress,
  RegisterBlock,
} from 'ghostbus';
import { z } from 'zod';

const MIB = 2 ** 20;
const PAGE_BYTES = 4096;
/** "SHLF", first letter in the highest byte. */
const ID_VALUE = 0x53484c46;
const REGISTERS_BAR = 0;
const MEMORY_BAR = 2;

class Shelf implements FunctionModel {
  readonly bars: FunctionModel['bars'];
  readonly #registers: RegisterBlock<'ID' | 'LABEL'>;

  constructor(log: Log, memory: MemoryRegion) {
    this.#registers = new RegisterBlock(
      { name: 'registers', sizeBytes: PAGE_BYTES, log },
      { ID: { offset: 0x0, reset: ID_VALUE, writable: 0 }, LABEL: { offset: 0x4 } },
    );
    this.bars = {
      [REGISTERS_BAR]: [{ offset: 0, sizeBytes: PAGE_BYTES, registers: this.#registers }],
      [MEMORY_BAR]: [{ offset: 0, sizeBytes: memory.sizeBytes, memory }],
    };
  }

  set label(value: number) {
    this.#registers.set('LABEL', value);
  }

  inspect(): unknown {
    return { label: this.#registers.get('LABEL') };
  }
}

function shelfFunction(memory: MemoryRegion): PcieFunction<Shelf> {
  return {
    identity: {
      vendorId: 0x1234,
      deviceId: 0x6763,
      subsystemVendorId: 0x1234,
      subsystemId: 0x0001,
      classCode: 0x088000,
      revisionId: 1,
    },
    bars: [
      { index: REGISTERS_BAR, kind: 'memory32', sizeBytes: PAGE_BYTES },
      { index: MEMORY_BAR, kind: 'memory64', prefetchable: true, sizeBytes: memory.sizeBytes },
    ],
    capabilities: [pciExpress({ functionLevelReset: true })],
    powerOn: (port: FunctionPort) => new Shelf(port.log, memory),
  };
}

const driver: MatrixDriver = {
  name: 'shelf',
  needs: [],
  load: 'modprobe shelf',
  prepare: ({ address }) => `until_true '[ -e /dev/shelf-${address('shelf0')} ]'`,
};

const exporter: Exporter = {
  name: 'shelf',
  title: 'shelf memory',
  driver,
  functionName: 'shelf0',
  outlives: true,
  command: ({ address }, bytes) => ['export-shelf', address('shelf0'), String(bytes)],
  withoutRoute: { kind: 'refused', errno: 'EPERM', because: 'part_map gives -EPERM without peer2peer (shelf.c)' },
  reportsRoute: true,
};

export default definePlugin({
  name: 'shelf',
  description: 'memory that its driver shares with other devices',
  options: z.strictObject({
    memory: byteSize({ minBytes: 2 * MIB, maxBytes: 2 ** 34, powerOfTwo: true })
      .prefault('16M')
      .describe('its memory'),
  }),
  guest: {
    drivers: ['shelf'],
    programs: [packageFile(import.meta.url, 'guest/programs')],
    modules: () => [
      { folder: packageFile(import.meta.url, 'guest/driver'), purpose: 'driver', why: 'no stock driver knows a shelf' },
    ],
  },
  commands: {
    label: command({
      description: 'writes a label on it',
      arguments: z.strictObject({ value: z.int().min(0).max(0xffffffff).describe('what the driver reads then') }),
      run: (shelf: Shelf, { value }) => {
        shelf.label = value;
        return { value };
      },
    }),
  },
  matrix: { instances: [{ memory: '64M' }], exporters: [exporter] },
  create: ({ memory }, context: CreateContext) => shelfFunction(context.createMemory('memory', memory)),
});
