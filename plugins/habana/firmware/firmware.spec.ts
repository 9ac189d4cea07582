import assert from 'node:assert/strict';
import { CFG } from '../interconnect/address-map.js';
import { packet } from '../queues/packets.js';
import { Driver, qmanOf } from '../test/driver.js';
import { BOOT_FAILURES } from './boot-failure.js';
import { CPUCP_RESULT, CPUCP_OPCODE as op } from './cpucp.js';

const BOOT_STATUS = CFG.psoc + 0x300;
const MESSAGE = CFG.psoc + 0x304;
const COMMAND_STATUS = CFG.psoc + 0x15c;
const BUFFER = 0x9000;

describe('habana: boot firmware', () => {
  function boot(driver: Driver): number[] {
    const seen = [driver.read(BOOT_STATUS)];
    for (let image = 0; image < 2; image++) {
      driver.write(COMMAND_STATUS, 0);
      driver.write(MESSAGE, 2);
      seen.push(driver.read(COMMAND_STATUS), driver.read(BOOT_STATUS));
      driver.write(MESSAGE, 0);
    }
    return seen;
  }

  it('takes two images and runs', () => {
    assert.deepEqual(boot(new Driver()), [16, 1, 15, 0, 3]);
  });

  it('starts over after a reset', () => {
    const driver = new Driver();
    boot(driver);
    driver.write(CFG.gic + 0x40, 485);
    assert.equal(driver.read(BOOT_STATUS), 1);
    driver.write(CFG.psoc + 0x498, 1);
    assert.deepEqual(boot(driver), [16, 1, 15, 0, 3]);
  });

  const expected: Record<(typeof BOOT_FAILURES)[number], number[]> = {
    preboot: [0, 1, 15, 0, 3],
    'boot-fit': [16, 0, 16, 0, 16],
    'u-boot': [16, 1, 16, 0, 3],
    linux: [16, 1, 15, 0, 15],
    'error-register': [16, 1, 15, 0, 3],
    'cpu-queue': [16, 1, 15, 0, 3],
  };
  for (const failure of BOOT_FAILURES) {
    it(`fails at ${failure} when told to, and not any more when told so`, () => {
      const driver = new Driver({ failBoot: failure });
      assert.equal(driver.read(CFG.psoc + 0x160) >>> 31, failure === 'error-register' ? 1 : 0);
      assert.deepEqual(boot(driver), expected[failure]);
      driver.openCpuQueues();
      assert.equal(driver.read(CFG.cpuInterface + 0x230), failure === 'cpu-queue' ? 3 : 2);
      driver.control('fail-boot', { stage: 'none' });
      driver.write(CFG.psoc + 0x498, 1);
      assert.deepEqual(boot(driver), [16, 1, 15, 0, 3]);
    });
  }
});

describe('habana: management processor', () => {
  let driver: Driver;
  beforeEach(() => {
    driver = new Driver({ temperature: 55, power: 80, cardName: 'HL205x', cardLocation: 3 });
    driver.openCpuQueues();
    driver.wantEvents();
  });
  const ask = (opcode: number, fields: Parameters<Driver['cpucp']>[1] = {}) => driver.cpucp(opcode, fields);
  const withBuffer = (opcode: number, index: number) => {
    const reply = ask(opcode, { value: 0x8000000000n + BigInt(BUFFER), index });
    return { ...reply, bytes: driver.guestBytes(BUFFER, Number(reply.result)) };
  };
  const asText = (bytes: Uint8Array, offset: number) =>
    String.fromCharCode(...bytes.subarray(offset, bytes.indexOf(0, offset)));

  it('answers a test with the value and the fence that the driver polls', () => {
    assert.deepEqual(ask(op.test, { value: 0xfe8ce7a5n }), { result: 0xfe8ce7a5n, code: 0, fence: 0xfe8ce7a5 });
  });

  it('goes on over the end of its queue', () => {
    for (let count = 0; count < 200; count++)
      assert.equal(ask(op.test, { value: BigInt(count) }).result, BigInt(count));
  });

  it('describes the card', () => {
    const { bytes, result } = withBuffer(op.infoGet, 0x6e8);
    assert.equal(result, 0x6e8n);
    const view = new DataView(bytes.buffer);
    assert.match(asText(bytes, 0x400), /^Linux version .*ghostbus/);
    assert.equal(view.getUint32(0x484, true), 1);
    assert.equal(view.getUint32(0x488, true), 3);
    assert.equal(asText(bytes, 0x620), 'HL205x');
    assert.equal(view.getUint32(0, true), 1, 'the first sensor is a temperature');
    assert.equal(bytes[0x647], 0, 'no event-queue health check');
  });

  it('never writes more than the driver has room for', () => {
    driver.bus.guestMemory.writeU32(BUFFER + 16, 0xdeadbeef);
    assert.equal(withBuffer(op.infoGet, 16).result, 16n);
    assert.equal(driver.bus.guestMemory.readU32(BUFFER + 16), 0xdeadbeef);
    assert.match(asText(withBuffer(op.eepromGet, 256).bytes, 0), /serial number GB00000003/);
  });

  it('reads sensors by kind, channel and attribute', () => {
    const read = (opcode: number, channel: number, attribute: number) =>
      ask(opcode, { index: channel | (attribute << 16) });
    assert.equal(read(op.temperatureGet, 0, 1).result, 55_000n);
    assert.equal(read(op.temperatureGet, 1, 9).result, 105_000n);
    assert.equal(read(op.voltageGet, 0, 1).result, 12_000n);
    assert.equal(read(op.currentGet, 0, 3).result, 35_000n);
    assert.equal(read(op.powerGet, 0, 9).result, 80_000_000n, 'microwatts for hwmon');
    assert.equal(read(op.powerGet, 0, 8).result, 80_000n, 'milliwatts for the driver');
    assert.notEqual(read(op.temperatureGet, 9, 1).code, 0);
    assert.notEqual(read(op.temperatureGet, 0, 77).code, 0);
    driver.control('sensor', { kind: 'temperature', channel: 0, value: 99_000 });
    assert.equal(read(op.temperatureGet, 0, 1).result, 99_000n);
  });

  it('remembers clocks and the power limit until it is reset', () => {
    assert.equal(ask(op.frequencyGet, { index: 7 }).result, 2_200_000_000n);
    ask(op.frequencySet, { index: 5, value: 1_000_000_000n });
    assert.equal(ask(op.frequencyCurrentGet, { index: 5 }).result, 1_000_000_000n);
    ask(op.maxPowerSet, { value: 350_000n });
    assert.equal(ask(op.maxPowerGet).result, 350_000n);
    assert.equal(ask(op.pllInfoGet, { index: 0 }).result & 0xffffn, 1000n);
    assert.notEqual(ask(op.pllInfoGet, { index: 10 }).code, 0);
    assert.notEqual(ask(op.frequencySet, { index: 10, value: 1n }).code, 0);
  });

  it('counts energy by the power that it measured', () => {
    driver.bus.clock.advance(2000);
    assert.equal(ask(op.totalEnergyGet).result, 160_000n);
    driver.control('sensor', { kind: 'power', channel: 0, value: 10e6 });
    driver.bus.clock.advance(500);
    assert.equal(ask(op.totalEnergyGet).result, 165_000n);
    driver.write(CFG.psoc + 0x498, 1);
    driver.openCpuQueues();
    assert.equal(ask(op.totalEnergyGet).result, 0n);
  });

  it('lights lamps, and finds nobody on an I2C bus', () => {
    assert.equal(ask(op.ledSet, { index: 1, value: 1n }).code, 0);
    assert.deepEqual((driver.model.inspect() as { leds: boolean[] }).leds, [false, true, false]);
    assert.equal(ask(op.ledSet, { index: 3, value: 1n }).code, CPUCP_RESULT.invalidParameters);
    assert.equal(ask(op.i2cRead, { index: 0x01000050 }).code, CPUCP_RESULT.fault);
  });

  it('acknowledges what it does not know, and says so', () => {
    assert.deepEqual(ask(59), { result: 0n, code: 0, fence: 0xfe8ce7a5 });
    assert.ok(driver.context.log.records.some(({ message }) => message.includes('not implemented')));
  });

  it('is silent when it has died', () => {
    driver.control('heartbeat', { answers: 'false' });
    assert.equal(ask(op.test).fence, 0xffffffff);
    driver.control('heartbeat', { answers: true });
    assert.equal(ask(op.test).fence, 0xfe8ce7a5);
  });

  it('refuses queues that cannot be', () => {
    for (const [register, value, state] of [
      [0x20c, 48, 4],
      [0x228, 0, 4],
      [0x12c, 0, 5],
    ] as const) {
      const other = new Driver();
      other.openCpuQueues();
      other.write(CFG.cpuInterface + register, value);
      other.write(CFG.cpuInterface + 0x230, 3);
      other.write(CFG.gic + 0x40, 484);
      assert.equal(other.read(CFG.cpuInterface + 0x230), state);
    }
  });

  it('survives descriptors that lead anywhere', () => {
    for (const pointer of [0n, 0xffffffffffffffffn, 0x8000000000n + 0x3ffffff8n, 0x7fffffffffn]) {
      driver.bus.guestMemory.fill(0x10000, 0, 1024);
      driver.bus.guestMemory.writeU64(0x10000, pointer);
      driver.bus.guestMemory.writeU32(0x10008, 0xffffffff);
      driver.write(CFG.cpuInterface + 0x200, 1);
      driver.write(CFG.gic + 0x40, 484);
      driver.bus.run();
      driver.write(CFG.cpuInterface + 0x200, 0);
    }
    const other = new Driver();
    other.openCpuQueues();
    assert.equal(other.cpucp(op.test, { value: 5n }).result, 5n);
  });
});

describe('habana: events', () => {
  let driver: Driver;
  beforeEach(() => {
    driver = new Driver();
    driver.openCpuQueues();
  });
  const control = (command: string, args: Record<string, unknown> = {}) => {
    const answer = driver.control(command, args);
    driver.bus.run();
    return answer;
  };

  it('wait until the driver wants them, are numbered, and come with an interrupt', () => {
    control('thermal', { state: 'start' });
    assert.deepEqual(driver.takeEvents(), []);
    driver.wantEvents();
    control('thermal', { state: 'end' });
    assert.deepEqual(
      driver.takeEvents().map(({ type, index }) => [type, index]),
      [
        [660, 1],
        [661, 2],
      ],
    );
    assert.deepEqual(driver.fn.interrupts, [0, 0]);
  });

  it('wait for room in the ring', () => {
    driver.wantEvents();
    for (let count = 0; count < 70; count++) control('event', { type: 239 });
    assert.equal(driver.takeEvents().length, 64);
    driver.bus.clock.advance(5);
    driver.bus.run();
    assert.equal(driver.takeEvents().length, 6);
  });

  for (const [command, args, type, check] of [
    ['ecc', { block: 'hbm2', correctable: true, address: '0x1234', syndrome: 7 }, 187, [0x34, 0x12]],
    ['ecc', { block: 'mmu', correctable: false }, 194, []],
    ['power', { state: 'start' }, 658, []],
    ['overheat', { cause: 3 }, 421, [3]],
    ['out-of-sync', { pi: 5, ci: 4 }, 647, [5, 0, 0, 0, 4]],
    ['reset-request', {}, 646, []],
    ['watchdog', {}, 645, [60]],
    ['event', { type: 'PLL0', data: 'a0b1' }, 239, [0xa0, 0xb1]],
    ['page-fault', { address: 2 ** 48 + 0x5000 }, 380, []],
    ['tpc-error', { index: 2, cause: 1 }, 313, []],
  ] as const) {
    it(`report ${command} ${JSON.stringify(args)}`, () => {
      driver.wantEvents();
      control(command, args);
      const [event] = driver.takeEvents();
      assert.equal(event?.type, type);
      assert.deepEqual([...event!.data.subarray(0, check.length)], [...check]);
    });
  }

  it('put the cause where the driver reads it', () => {
    driver.wantEvents();
    driver.enable('DMA2');
    driver.write(qmanOf('DMA2') + 0x0c, 0x3fff);
    driver.write(qmanOf('DMA2') + 0xcd8, 434);
    control('qman-error', { engine: 'dma2', stream: 1, cause: 8 });
    control('page-fault', { address: 2 ** 48 + 0x5000 });
    control('tpc-error', { index: 7, cause: 2 });
    assert.deepEqual(
      driver.takeEvents().map(({ type }) => type),
      [585, 380, 343],
    );
    assert.equal(driver.read(qmanOf('DMA2') + 0x44), 8);
    assert.equal(driver.read(CFG.mmuUp + 0x34), 0x40000 | 0x10000);
    assert.equal(driver.read(CFG.mmuUp + 0x38), 0x5000);
    assert.equal(driver.read(CFG.tpcConfig[7]! + 0x958), 2);
  });

  it('of an engine are reported again only after the driver unmasked them', () => {
    driver.wantEvents();
    driver.enable('DMA2');
    driver.write(qmanOf('DMA2') + 0x0c, 0x3fff);
    driver.write(qmanOf('DMA2') + 0xcd8, 434);
    for (let count = 0; count < 3; count++) driver.run('DMA2', 0, packet.msgLong(0x7f00000000, 1));
    assert.equal(driver.takeEvents().length, 1);
    driver.cpucp(op.unmaskEventArray, { extra: [2, 1, 585] });
    assert.equal(driver.takeEvents().length, 1);
  });

  it('are refused when they make no sense', () => {
    for (const [command, args, message] of [
      ['explode', {}, /unknown command "explode"; there are: event/],
      ['event', { type: 9999 }, /type: must be 0 to 662/],
      ['event', { type: 1, data: 'xyz' }, /hexadecimal/],
      ['ecc', { block: 'hbm9', correctable: true }, /hbm0/],
      ['ecc', { block: 'hbm0' }, /correctable: must be true or false/],
      ['stick', { engine: 'DMA9' }, /there is no engine DMA9; known: DMA0/],
      ['fail-boot', { stage: 'moon' }, /preboot/],
      ['sensor', { kind: 'humidity', channel: 0, value: 1 }, /temperature 0 to 1/],
      ['thermal', {}, /state: must be start or end/],
      ['qman-error', { engine: 'DMA0', stream: 5, cause: 1 }, /stream: must be/],
    ] as const) {
      assert.throws(() => driver.control(command, args), message, command);
    }
  });
});
