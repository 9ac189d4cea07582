import assert from 'node:assert/strict';
import type { PcieFunction } from 'ghostbus';
import { TestBus, type TestFunction } from 'ghostbus/testing';
import plugin from './index.js';
import type { RdmaModel } from './model.js';
import { formatGuid, formatMac, macAddress, nodeGuid } from './port/addresses.js';

/** linux/pci_regs.h PCI_CAPABILITY_LIST, and the ids of what this function has. */
const CAPABILITY_LIST = 0x34;
const CAPABILITY_NAMES: Readonly<Record<number, string>> = {
  1: 'Power Management',
  9: 'Vendor-Specific',
  16: 'PCI Express',
  17: 'MSI-X',
};

describe('rdma', () => {
  let fn: TestFunction<RdmaModel>;

  function create(link: 'roce' | 'ib', instance: number): TestFunction<RdmaModel> {
    const bus = new TestBus(4096);
    const name = `rdma${instance}`;
    const created = plugin.create(plugin.options.parse({ link }), bus.context(name, instance));
    return bus.add(name, (created as readonly PcieFunction<RdmaModel>[])[0]!);
  }

  beforeEach(() => {
    fn = create('roce', 1);
  });

  it('is a ConnectX-7 whose class follows the link', () => {
    assert.deepEqual(fn.card.identity, {
      vendorId: 0x15b3,
      deviceId: 0x1021,
      subsystemVendorId: 0x15b3,
      subsystemId: 0x0058,
      classCode: 0x020000,
      revisionId: 0,
    });
    assert.equal(create('ib', 0).card.identity.classCode, 0x020700);
  });

  it('has its capabilities where the card has them', () => {
    const found: [string | undefined, number][] = [];
    for (let at = fn.readConfig(CAPABILITY_LIST, 1); at !== 0; at = fn.readConfig(at + 1, 1)) {
      found.push([CAPABILITY_NAMES[fn.readConfig(at, 1)], at]);
    }
    assert.deepEqual(found, [
      ['Power Management', 0x40],
      ['PCI Express', 0x60],
      ['MSI-X', 0x9c],
      ['Vendor-Specific', 0xc0],
    ]);
  });

  it('leaves the pages of the MSI-X table and pending bits alone', () => {
    for (const { offset, sizeBytes } of fn.model.bars[0]!) {
      assert.ok(offset + sizeBytes <= 0x2000 || offset >= 0x4000, `part at 0x${offset.toString(16)}`);
    }
  });

  it('gives every instance addresses of its own', () => {
    const { mac, nodeGuid: guid } = fn.inspect() as { mac: string; nodeGuid: string };
    assert.equal(mac, '02:67:62:00:00:10');
    assert.equal(guid, '0267:62ff:fe00:0010');
    assert.equal(formatMac(macAddress(2 ** 24 - 1)), '02:67:62:ff:ff:ff');
    assert.equal(formatGuid(nodeGuid(2 ** 24 - 1)), '0267:62ff:feff:ffff');
    assert.throws(() => macAddress(2 ** 24), RangeError);
  });

  it('speaks RoCE unless told otherwise', () => {
    assert.deepEqual(plugin.options.parse({}), { link: 'roce', functions: 1, mtu: 1500, speed: 100 });
    assert.equal(plugin.options.safeParse({ link: 'token-ring' }).success, false);
  });
});
