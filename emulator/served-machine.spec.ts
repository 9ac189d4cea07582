import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Bus } from './bus.js';
import { closeFd, connectUnix, createMemfd, duplicateFd } from './host/index.js';
import { Machine } from './machine.js';
import type { FunctionPort, PcieFunction } from './plugin/index.js';
import { ServedMachine } from './served-machine.js';
import { RecordingLog } from './testing/index.js';
import { REGION } from './vfio-user/device.js';

const SLOW_NS = 80_000_000n;
const REGISTERS_AT = 0x100_0000;
const PAGE_BYTES = 4096;

describe('what is told of a slow handler names the function that it was for:', () => {
  let folder: string;
  let bus: Bus;
  let served: ServedMachine;
  let now: bigint;
  /** How far the clock goes with each look at it. */
  let step: bigint;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ghostbus-spec-'));
    now = 0n;
    step = 0n;
    const nowNs = () => {
      now += step;
      return now;
    };
    bus = new Bus({ log: new RecordingLog(), nowNs });
    served = new ServedMachine(new Machine(bus, 'address'));
  });

  afterEach(() => {
    served.close();
    bus.close();
    rmSync(folder, { recursive: true });
  });

  const takeLong = () => {
    now += SLOW_NS;
  };

  /** Puts a function with one page of registers on the bus, each of whose writes takes long. */
  function add(name: string): FunctionPort {
    let port: FunctionPort | undefined;
    const registers = { read: () => 0, write: takeLong };
    const card: PcieFunction = {
      identity: {
        vendorId: 0x1234,
        deviceId: 1,
        subsystemVendorId: 0,
        subsystemId: 0,
        classCode: 0xff0000,
        revisionId: 0,
      },
      bars: [{ index: 0, kind: 'memory32', sizeBytes: PAGE_BYTES }],
      capabilities: [],
      powerOn: (given) => {
        port = given;
        return { bars: { 0: [{ offset: 0, sizeBytes: PAGE_BYTES, registers }] } };
      },
    };
    served.add(name, card, { socketPath: join(folder, `${name}.sock`), log: new RecordingLog() });
    return port!;
  }

  function slowest(): string | undefined {
    bus.turn(0);
    return bus.statistics().slowest?.what;
  }

  it('posted work', () => {
    add('other0').post(() => {});
    add('stub0').post(takeLong);
    bus.turn(0);
    assert.equal(slowest(), 'posted work for stub0');
  });

  it('a timer', () => {
    add('other0');
    add('stub0').clock.after(0, takeLong);
    assert.equal(slowest(), 'a timer for stub0');
  });

  it('a request', () => {
    add('other0');
    add('stub0');
    const client = connectUnix(join(folder, 'stub0.sock'));
    step = SLOW_NS;
    assert.equal(slowest(), 'a request for stub0');
    closeFd(client);
  });

  it('a register that a peer writes', () => {
    const writer = add('other0');
    add('stub0');
    const memory = createMemfd('guest', PAGE_BYTES);
    for (const [index, emulated] of served.machine.functions.entries()) {
      const guest = { address: 0, sizeBytes: PAGE_BYTES, readable: true, writable: true, offset: 0 };
      emulated.dmaMap(guest, duplicateFd(memory));
      const address = new Uint8Array(new Uint32Array([REGISTERS_AT + index * PAGE_BYTES]).buffer);
      emulated.regionWrite(REGION.CONFIG, 0x10, address);
      emulated.regionWrite(REGION.CONFIG, 0x04, Uint8Array.of(0x06, 0));
    }
    closeFd(memory);
    writer.post(() => writer.dma.writeU32(REGISTERS_AT + PAGE_BYTES, 1));
    assert.equal(slowest(), 'a register write by a peer for stub0');
  });
});
