import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { ConfigSpace } from '../../emulator/pci/config-space.js';
import { FakeBus, type FakeFunction, fakeContext } from '../../emulator/testing.js';
import { CFG_BAR, CFG_BASE, CFG_OFFSET_IN_BAR, HBM_BAR, SRAM_BAR } from './address-map.js';
import { blockLayouts } from './cfg-space.js';
import { CTRL_WRITE, elbi, STS_DONE, STS_ERR } from './elbi.js';
import plugin from './index.js';

const CPU_BOOT_STATUS = 0xc4b300;
const HW_STATE = 0xc4b100;

describe('habana', () => {
  let context: ReturnType<typeof fakeContext>;
  let fn: FakeFunction;

  beforeEach(() => {
    context = fakeContext('habana0', 3);
    const created = plugin.create({ hbm: 2 ** 29 }, context);
    assert.ok('bars' in created);
    fn = new FakeBus(4096).add('habana0', created);
  });

  const mailbox = () => fn.configRegisters(0xff0);
  function mailboxAccess(address: number, control: number, data = 0): { status: number; data: number } {
    mailbox().write(elbi.STS, 4, 0);
    mailbox().write(elbi.ADDR, 4, address % 2 ** 32);
    mailbox().write(elbi.DATA, 4, data);
    mailbox().write(elbi.CTRL, 4, control);
    return { status: mailbox().read(elbi.STS, 4), data: mailbox().read(elbi.DATA, 4) };
  }

  it('has the BARs that the driver insists on', () => {
    assert.deepEqual(
      fn.model.bars.map(({ index, kind, prefetchable, sizeBytes }) => ({ index, kind, prefetchable, sizeBytes })),
      [
        { index: SRAM_BAR, kind: 'memory64', prefetchable: true, sizeBytes: 0x4000000 },
        { index: CFG_BAR, kind: 'memory64', prefetchable: true, sizeBytes: 0x8000000 },
        { index: HBM_BAR, kind: 'memory64', prefetchable: true, sizeBytes: 2 ** 29 },
      ],
    );
    assert.deepEqual(
      new ConfigSpace(fn.model).capabilities.map(({ capability, offset }) => [capability.name, offset]),
      [
        ['MSI', 0x50],
        ['PCI Express', 0x70],
      ],
    );
  });

  it('keeps what is written to its memories until the machine is reset', () => {
    fn.write(SRAM_BAR, 0x200000, 0x11223344);
    fn.write(HBM_BAR, 0x1ffffffc, 0x55667788);
    fn.model.reset('flr');
    assert.equal(fn.read(SRAM_BAR, 0x200000), 0x11223344);
    assert.equal(fn.read(HBM_BAR, 0x1ffffffc), 0x55667788);
    fn.model.reset('device');
    assert.equal(fn.read(SRAM_BAR, 0x200000), 0);
    assert.equal(fn.read(HBM_BAR, 0x1ffffffc), 0);
  });

  it('places its blocks on whole pages that do not overlap', () => {
    let end = 0;
    for (const { name, base, sizeBytes } of blockLayouts) {
      assert.equal(base % 4096, 0, name);
      assert.equal(sizeBytes % 4096, 0, name);
      assert.ok(base >= end, `${name} at 0x${base.toString(16)} begins before 0x${end.toString(16)}`);
      end = base + sizeBytes;
    }
  });

  // kernel: include/gaudi/asic_reg/*_regs.h, the last instance of every kind of block.
  for (const [register, offset] of [
    ['PSOC_GLOBAL_CONF.CPU_BOOT_STATUS', 0xc4b300],
    ['CPU_IF.QUEUE_INIT', 0x442230],
    ['GIC_DISTRIBUTOR__5.GICD_SETSPI_NSR', 0x800040],
    ['STLB.INV_PS', 0xc1203c],
    ['MMU_UP.RAZWI_READ_ID', 0xc11068],
    ['DMA7_QM.PQ_PI[3]', 0x5e80ac],
    ['DMA7_CORE.ERR_CAUSE', 0x5e0164],
    ['TPC7_QM.GLBL_STS0', 0xfc8038],
    ['TPC7_CFG.WQ_INFLIGHT_CNTR', 0xfc69b8],
    ['MME2_QM.CGM_STS', 0x168c74],
    ['MME3_CTRL.ARCH_STATUS', 0x1e0000],
    ['NIC4_QM1.GLBL_CFG0', 0xde2000],
    ['DMA0_QM.CQ_TSIZE[4]', 0x5081bc],
    ['SYNC_MNGR_E_N.MON_STATUS[511]', 0x4f67fc],
    ['PCIE_CORE.MSI_REQ', 0xc04100],
    ['PSOC_CPU_PLL.DIV_SEL[2]', 0xc70288],
  ] as const) {
    it(`warns once by the name of ${register}`, () => {
      fn.read(CFG_BAR, CFG_OFFSET_IN_BAR + offset);
      fn.read(CFG_BAR, CFG_OFFSET_IN_BAR + offset);
      const warnings = context.log.records.filter((record) => record.level === 'warn');
      assert.equal(warnings.length, 1);
      assert.ok(warnings[0]!.message.includes(register), warnings[0]!.message);
      const { unimplemented } = fn.model.inspect!() as { unimplemented: unknown[] };
      assert.deepEqual(unimplemented, [{ register, reads: 2, writes: 0 }]);
    });
  }

  it('reads and writes registers through the ELBI mailbox', () => {
    assert.deepEqual(mailboxAccess(CFG_BASE + HW_STATE, CTRL_WRITE, 0x1234), { status: STS_DONE, data: 0x1234 });
    assert.deepEqual(mailboxAccess(CFG_BASE + HW_STATE, 0), { status: STS_DONE, data: 0x1234 });
    assert.equal(fn.read(CFG_BAR, CFG_OFFSET_IN_BAR + HW_STATE), 0x1234);
    fn.model.reset('flr');
    assert.deepEqual(mailboxAccess(CFG_BASE + HW_STATE, 0), { status: STS_DONE, data: 0 });
  });

  for (const [where, address] of [
    ['between two blocks', CFG_BASE + 0x1000],
    ['below the register space', CFG_BASE - 4],
    ['above the register space', CFG_BASE + 0x4000000 - 4],
    ['at an odd address', CFG_BASE + CPU_BOOT_STATUS + 2],
  ] as const) {
    it(`answers the ELBI mailbox with an error ${where}`, () => {
      assert.deepEqual(mailboxAccess(address, 0), { status: STS_ERR, data: 0 });
      assert.equal(mailboxAccess(address, CTRL_WRITE, 1).status, STS_ERR);
    });
  }

  it('says in its support table which blocks are names only', () => {
    const readme = readFileSync(new URL('../../../plugins/habana/README.md', import.meta.url), 'utf8');
    const rows = readme.split('\n').filter((line) => line.includes('names only'));
    for (const { name, registers } of blockLayouts) {
      const isNameOnly = Object.values(registers).every((register) => register.unimplemented);
      const family = name.replace(/\d+/g, 'n').replace(/^SYNC_MNGR_.*/, 'SYNC_MNGR');
      const isListed = rows.some((row) => row.includes(`\`${family}\``));
      assert.equal(isListed, isNameOnly, `${name} is ${isNameOnly ? '' : 'not '}names only; README.md disagrees`);
    }
  });

  it('gives every instance a serial number of its own', () => {
    const { serialNumber } = fn.model.inspect!() as { serialNumber: string };
    assert.equal(serialNumber, 'GB00000003');
  });

  it('has 32 GiB of HBM unless told otherwise', () => {
    assert.deepEqual(plugin.options.parse({}), { hbm: 2 ** 35 });
    for (const hbm of ['256M', '64G', '3G']) assert.equal(plugin.options.safeParse({ hbm }).success, false, hbm);
  });
});
