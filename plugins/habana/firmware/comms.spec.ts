import assert from 'node:assert/strict';
import { crc32 } from 'node:zlib';
import { HBM_BAR, SRAM_BAR } from '../device.js';
import { CFG, SRAM_BASE } from '../interconnect/address-map.js';
import { Driver } from '../test/driver.js';
import { COMMS_COMMAND as command, COMMS_STATUS as status } from './comms.js';

const BOOT_STATUS = CFG.psoc + 0x300;
const COMMAND = CFG.psoc + 0x304;
const ANSWER = CFG.psoc + 0x15c;
const HOST_PI_UPDATE = CFG.psoc + 0x104;
const HALT = CFG.psoc + 0x11c;
const QUEUE_INIT = CFG.cpuInterface + 0x230;

/** The driver's side of the protocol: hl_fw_dynamic_send_protocol_cmd and what calls it. */
class Loader extends Driver {
  constructor(options: Record<string, unknown> = {}) {
    super({ profile: 'secured', ...options });
  }

  #clear(): void {
    this.write(COMMAND, command.clearStatus << 27);
    assert.equal(this.read(ANSWER), 0);
  }

  /** Acknowledgement and, for commands that are waited for, what came of it. */
  send(code: number, imageBytes = 0): { acknowledged: number; outcome: number; sramOffset: number } {
    this.#clear();
    this.write(COMMAND, ((code << 27) | imageBytes) >>> 0);
    const acknowledged = this.read(ANSWER) >>> 28;
    this.#clear();
    this.write(COMMAND, 0);
    const answer = this.read(ANSWER);
    return { acknowledged, outcome: answer >>> 28, sramOffset: (answer & 0x3ffffff) * 4 };
  }

  succeed(code: number, imageBytes = 0): number {
    const { acknowledged, outcome, sramOffset } = this.send(code, imageBytes);
    assert.deepEqual([acknowledged, outcome], [status.acknowledged, status.ok]);
    return sramOffset;
  }

  descriptor(): DataView {
    const offset = this.succeed(command.prepareDescriptor, 4096);
    const bytes = new Uint8Array(0x500);
    this.fn.readBytes(SRAM_BAR, offset, bytes);
    return new DataView(bytes.buffer);
  }

  /** Loads one image and returns the boot status that follows. */
  load(firstDword = 0): number {
    const address = Number(this.descriptor().getBigUint64(0x278, true));
    const [bar, offset] = address >= SRAM_BASE ? [SRAM_BAR, address - SRAM_BASE] : [HBM_BAR, address];
    this.fn.write(bar, offset, firstDword);
    this.succeed(command.dataReady);
    this.succeed(command.execute);
    return this.read(BOOT_STATUS);
  }

  boot(): void {
    this.succeed(command.resetState);
    assert.deepEqual([this.read(BOOT_STATUS), this.load(), this.load()], [16, 15, 3]);
  }
}

describe('habana: a secured card', () => {
  let loader: Loader;
  beforeEach(() => {
    loader = new Loader();
  });

  it('has its own device identifier, and says what its firmware does', () => {
    assert.equal(loader.fn.card.identity.deviceId, 0x1010);
    assert.equal(loader.read(CFG.psoc + 0x150).toString(2), '10000000010100110000011101100001');
    assert.equal(new Driver().read(CFG.psoc + 0x150), 0);
  });

  it('takes two images and runs, again after each reset', () => {
    loader.boot();
    loader.write(HALT, 485);
    loader.boot();
    loader.send(command.resetDevice);
    loader.boot();
  });

  it('describes itself so that the driver believes it', () => {
    const view = loader.descriptor();
    assert.equal(view.getUint32(0, true), 0x4843444d);
    const sizeBytes = view.getUint16(8, true);
    assert.equal(view.getUint32(4, true), crc32(new Uint8Array(view.buffer, 16, sizeBytes)));
    const dynamicRegister = (index: number) => view.getUint32(16 + 4 * index, true);
    assert.equal(dynamicRegister(24), COMMAND);
    assert.equal(dynamicRegister(25), ANSWER);
    assert.equal(dynamicRegister(26), HOST_PI_UPDATE);
    assert.equal(dynamicRegister(32), HALT);
    assert.match(new TextDecoder().decode(new Uint8Array(view.buffer, 0x178, 64)), /Preboot version hl-gaudi/);
    loader.load();
    assert.match(new TextDecoder().decode(new Uint8Array(loader.descriptor().buffer, 0x178, 64)), /^U-Boot/);
  });

  it('takes a message where an image could be', () => {
    assert.equal(loader.load(0x48434d01), 16);
    loader.boot();
  });

  it('refuses what it does not know, and to wait for events', () => {
    for (const code of [command.gotoWfe, 9, 31]) {
      const { acknowledged, outcome } = loader.send(code);
      assert.deepEqual([acknowledged, outcome], [status.error, status.noop]);
    }
    loader.boot();
  });

  for (const [failBoot, expected] of [
    ['u-boot', [16, 3]],
    ['linux', [15, 15]],
  ] as const) {
    it(`fails at ${failBoot} when told to`, () => {
      loader = new Loader({ failBoot });
      assert.deepEqual([loader.load(), loader.load()], expected);
    });
  }

  it('refuses the boot-fit image when told to', () => {
    loader = new Loader({ failBoot: 'boot-fit' });
    assert.equal(loader.send(command.dataReady).outcome, status.invalid);
  });

  it('takes bus addresses for its CPU queue as the engines do, and interrupts from the registers that it polls', () => {
    loader.write(CFG.cpuInterface + 0x204, 0x10000);
    loader.write(CFG.cpuInterface + 0x208, 0x80);
    loader.write(CFG.cpuInterface + 0x220, 0x20000);
    loader.write(CFG.cpuInterface + 0x224, 0x80);
    loader.write(CFG.cpuInterface + 0x20c, 16 * 64);
    loader.write(CFG.cpuInterface + 0x228, 64 * 64);
    loader.write(QUEUE_INIT, 3);
    loader.write(HOST_PI_UPDATE, 484);
    assert.equal(loader.read(QUEUE_INIT), 2);
  });

  it('resets itself after a fatal event, and after no other', () => {
    const resets = () => (loader.model.inspect() as { resets: number }).resets;
    const before = resets();
    loader.control('ecc', { block: 'hbm0', correctable: true });
    loader.bus.clock.advance(1000);
    assert.equal(resets(), before);
    loader.control('ecc', { block: 'hbm0', correctable: false });
    loader.bus.clock.advance(1000);
    assert.equal(resets(), before + 1);
    loader.control('reset-request', {});
    loader.write(HALT, 485);
    loader.bus.clock.advance(1000);
    assert.equal(resets(), before + 2, 'the driver was first');
    const open = new Driver();
    open.control('ecc', { block: 'hbm0', correctable: false });
    open.bus.clock.advance(1000);
    assert.equal((open.model.inspect() as { resets: number }).resets, 0);
  });
});
