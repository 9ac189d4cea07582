import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { commands } from './commands.js';
import { CFG_BAR, HBM_BAR, SRAM_BAR } from './device.js';
import { firmwareStubs } from './firmware/files.js';
import plugin from './index.js';
import { BAR2_BYTES, CFG, CFG_BASE, CFG_IN_BAR2, ENGINES, SRAM_BASE } from './interconnect/address-map.js';
import { CTRL_WRITE, ELBI, ELBI_CONFIG_OFFSET, STS_DONE, STS_ERR } from './interconnect/elbi.js';
import { Driver } from './test/driver.js';

const HW_STATE = CFG.psoc + 0x100;
/** linux/pci_regs.h PCI_CAPABILITY_LIST, PCI_CAP_ID_MSI, PCI_CAP_ID_EXP. */
const CAPABILITIES = 0x34;
const MSI_ID = 0x05;
const PCI_EXPRESS_ID = 0x10;

describe('habana: the function', () => {
  let driver: Driver;
  beforeEach(() => {
    driver = new Driver();
  });

  function mailboxAccess(address: number, control: number, data = 0): { status: number; data: number } {
    const { fn } = driver;
    fn.writeConfig(ELBI_CONFIG_OFFSET + ELBI.STS, 0);
    fn.writeConfig(ELBI_CONFIG_OFFSET + ELBI.ADDR, address % 2 ** 32);
    fn.writeConfig(ELBI_CONFIG_OFFSET + ELBI.DATA, data);
    fn.writeConfig(ELBI_CONFIG_OFFSET + ELBI.CTRL, control);
    return {
      status: fn.readConfig(ELBI_CONFIG_OFFSET + ELBI.STS),
      data: fn.readConfig(ELBI_CONFIG_OFFSET + ELBI.DATA),
    };
  }

  it('has the BARs that the driver insists on', () => {
    assert.deepEqual(
      driver.fn.card.bars.map(({ index, kind, prefetchable, sizeBytes }) => ({ index, kind, prefetchable, sizeBytes })),
      [
        { index: SRAM_BAR, kind: 'memory64', prefetchable: true, sizeBytes: 0x4000000 },
        { index: CFG_BAR, kind: 'memory64', prefetchable: true, sizeBytes: 0x8000000 },
        { index: HBM_BAR, kind: 'memory64', prefetchable: true, sizeBytes: 2 ** 29 },
      ],
    );
  });

  it('has MSI and PCI Express where the card has them', () => {
    const found: [number, number][] = [];
    const { fn } = driver;
    for (let at = fn.readConfig(CAPABILITIES, 1); at !== 0; at = fn.readConfig(at + 1, 1)) {
      found.push([fn.readConfig(at, 1), at]);
    }
    assert.deepEqual(found, [
      [MSI_ID, 0x50],
      [PCI_EXPRESS_ID, 0x70],
    ]);
  });

  it('covers BAR2 without a gap, and traps no more than the pages with behaviour', () => {
    const parts = driver.model.bars[CFG_BAR]!;
    let end = 0;
    let trapped = 0;
    for (const part of parts) {
      assert.equal(part.offset, end);
      end += part.sizeBytes;
      if ('registers' in part) trapped += part.sizeBytes;
    }
    assert.equal(end, BAR2_BYTES);
    assert.equal(trapped / 4096, 28 + 8 + 20 + 8 + 4 + 7);
  });

  it('keeps what is written to its memories until the machine is reset', () => {
    driver.fn.write(SRAM_BAR, 0x200000, 0x11223344);
    driver.fn.write(HBM_BAR, 0x1ffffffc, 0x55667788);
    driver.reset('flr');
    assert.equal(driver.fn.read(SRAM_BAR, 0x200000), 0x11223344);
    assert.equal(driver.fn.read(HBM_BAR, 0x1ffffffc), 0x55667788);
    driver.reset('device');
    assert.equal(driver.fn.read(SRAM_BAR, 0x200000), 0);
    assert.equal(driver.fn.read(HBM_BAR, 0x1ffffffc), 0);
  });

  it('shows the version strings where its registers say', () => {
    for (const reset of ['device', 'flr'] as const) {
      for (const register of [0x170, 0x174]) {
        const offset = driver.read(CFG.psoc + register) & 0xfffffff;
        const bytes = new Uint8Array(16);
        driver.fn.readBytes(SRAM_BAR, offset, bytes);
        assert.match(String.fromCharCode(...bytes), /^(BTL version|U-Boot 2021)/);
      }
      driver.reset(reset);
    }
  });

  it('reads and writes registers through the ELBI mailbox', () => {
    assert.deepEqual(mailboxAccess(CFG_BASE + HW_STATE, CTRL_WRITE, 0x1234), { status: STS_DONE, data: 0x1234 });
    assert.deepEqual(mailboxAccess(CFG_BASE + HW_STATE, 0), { status: STS_DONE, data: 0x1234 });
    assert.equal(driver.read(HW_STATE), 0x1234);
    driver.reset('flr');
    assert.deepEqual(mailboxAccess(CFG_BASE + HW_STATE, 0), { status: STS_DONE, data: 0 });
  });

  for (const [where, address] of [
    ['below the register space', CFG_BASE - 4],
    ['above the register space', CFG_BASE + 0x4000000],
    ['at an odd address', CFG_BASE + HW_STATE + 2],
  ] as const) {
    it(`answers the ELBI mailbox with an error ${where}`, () => {
      assert.deepEqual(mailboxAccess(address, 0), { status: STS_ERR, data: 0 });
      assert.equal(mailboxAccess(address, CTRL_WRITE, 1).status, STS_ERR);
    });
  }

  it('resets the whole device when the driver pulls its reset', () => {
    driver.write(HW_STATE, 1);
    driver.write(0x300000, 77);
    driver.fn.write(SRAM_BAR, 0x300000, 5);
    driver.write(CFG.psoc + 0x498, 1);
    assert.equal(driver.read(HW_STATE), 0);
    assert.equal(driver.read(0x300000), 0);
    assert.equal(driver.read(CFG.psoc + 0x300), 16);
    assert.equal(driver.fn.read(SRAM_BAR, 0x300000), 5, 'memory survives');
  });

  it('counts accesses to registers nobody declared', () => {
    driver.read(CFG.psoc + 0x7fc);
    const { unimplemented } = driver.model.inspect() as { unimplemented: { register: string }[] };
    assert.deepEqual(unimplemented, [{ register: 'PSOC_GLOBAL_CONF+0x7fc', reads: 1, writes: 0 }]);
  });

  it('gives every instance a serial number of its own', () => {
    assert.equal((driver.model.inspect() as { serialNumber: string }).serialNumber, 'GB00000003');
  });

  it('has 32 GiB of HBM unless told otherwise', () => {
    assert.equal(plugin.options.parse({}).hbm, 2 ** 35);
    for (const hbm of ['256M', '64G', '3G']) assert.equal(plugin.options.safeParse({ hbm }).success, false, hbm);
    assert.equal(plugin.options.safeParse({ cardName: 'HL-205' }).success, false);
  });

  it('brings the files that the driver asks for, in sizes that it accepts', () => {
    const stubs = firmwareStubs();
    assert.deepEqual(
      stubs.map(({ path }) => path.split('/').pop()),
      ['gaudi-boot-fit.itb', 'gaudi-fit.itb', 'gaudi_tpc.bin'],
    );
    for (const { contents } of stubs) assert.ok(contents.length > 0 && contents.length % 4 === 0);
  });

  it('says in its support table what the code says', () => {
    const readme = readFileSync(new URL('../../../plugins/habana/README.md', import.meta.url), 'utf8');
    for (const key of Object.keys((plugin.options as unknown as { shape: object }).shape)) {
      assert.ok(readme.includes(`| \`${key}\``), `README.md does not explain the option ${key}`);
    }
    for (const command of Object.keys(commands)) {
      assert.ok(readme.includes(`| \`${command}\``), `README.md does not explain the command ${command}`);
    }
    const trapped = driver.model.bars[CFG_BAR]!.reduce(
      (bytes, part) => bytes + ('registers' in part ? part.sizeBytes : 0),
      0,
    );
    assert.ok(readme.includes(`${trapped / 4096} pages of it trap`));
    assert.ok(readme.includes(`queue managers (${ENGINES.length})`));
  });

  it('places SRAM where engines expect it', () => {
    driver.fn.write(SRAM_BAR, 0x100, 0xabcd);
    const bytes = new Uint8Array(4);
    driver.model.interconnect.read(SRAM_BASE + 0x100, bytes, { asid: 0, bypassMmu: true });
    assert.deepEqual([...bytes], [0xcd, 0xab, 0, 0]);
    assert.equal(CFG_IN_BAR2, 0x4000000);
  });
});
