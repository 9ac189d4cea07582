/** Every register of a recorded probe against the device: what is behind it, and what the driver has to read there. */
import assert from 'node:assert/strict';
import { CPU_PLL_REGISTERS } from './blocks/pll.js';
import { BOOT_STATUS_CODE } from './blocks/psoc.js';
import { CFG_BAR } from './device.js';
import { CFG, CFG_IN_BAR2, ENGINES } from './interconnect/address-map.js';
import { Driver } from './test/driver.js';
import { probeReads, probeWrites } from './test/probe-registers.js';

const sum = (counts: Iterable<number>) => [...counts].reduce((total, count) => total + count, 0);

describe('habana: the registers of a recorded probe', () => {
  let driver: Driver;
  beforeEach(() => {
    driver = new Driver();
  });

  const unimplemented = () => (driver.model.inspect() as { unimplemented: unknown[] }).unimplemented;

  function traps(cfgOffset: number): boolean {
    const place = CFG_IN_BAR2 + cfgOffset;
    const part = driver.model.bars[CFG_BAR]!.find(
      ({ offset, sizeBytes }) => place >= offset && place < offset + sizeBytes,
    );
    return 'registers' in part!;
  }

  const trapped = (accesses: ReadonlyMap<number, number>) =>
    sum([...accesses].map(([offset, count]) => (traps(offset) ? count : 0)));

  it('are all here', () => {
    assert.deepEqual([probeReads.size, sum(probeReads.values())], [170, 323]);
    assert.deepEqual([probeWrites.size, sum(probeWrites.values())], [5778, 5967]);
  });

  it('are declared where they trap, when the driver reads and writes as often as it did', () => {
    for (const [offset, count] of probeReads) for (let i = 0; i < count; i++) driver.read(offset);
    for (const [offset, count] of probeWrites) for (let i = 0; i < count; i++) driver.write(offset, 0);
    driver.bus.run();
    assert.deepEqual(unimplemented(), []);
    driver.read(0xc4b7fc);
    assert.notDeepEqual(unimplemented(), [], 'a register that is not among them would be noticed');
  });

  it('trap in less than half of its accesses: only pages with behaviour do', () => {
    assert.deepEqual([trapped(probeReads), trapped(probeWrites)], [293, 2413]);
  });

  it('are memory where they do not trap, until the reset', () => {
    const storage = [...probeWrites.keys()].filter((offset) => !traps(offset));
    for (const offset of storage) driver.write(offset, offset + 1);
    for (const offset of storage) assert.equal(driver.read(offset), offset + 1, offset.toString(16));
    driver.reset('flr');
    for (const offset of storage) assert.equal(driver.read(offset), 0, offset.toString(16));
  });

  it('read at power-on what the driver waits for or reports, and otherwise zero', () => {
    const expected = new Map<number, number>([
      [CFG.psoc + 0x170, 0xf0001000],
      [CFG.psoc + 0x174, 0xf0001100],
      [CFG.psoc + 0x300, BOOT_STATUS_CODE.waitingForBootFit],
      ...CPU_PLL_REGISTERS,
      ...CFG.tpcConfig.map((tpc) => [tpc + 0x91c, 0xee] as const),
      ...CFG.mmeControl.map((mme) => [mme, 0x1180] as const),
      // Queues, completion queues and command processors: idle.
      ...ENGINES.map(({ qmanCfg }) => [qmanCfg + 0x38, 0x3fff] as const),
    ]);
    for (const offset of probeReads.keys()) {
      assert.equal(driver.read(offset), expected.get(offset) ?? 0, `register 0x${offset.toString(16)}`);
    }
  });
});
