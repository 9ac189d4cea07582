import assert from 'node:assert/strict';
import type { LegacyFunction } from 'ghostbus';
import { FakeBus, type FakeFunction, fakeContext } from 'ghostbus/testing';
import { ConfigSpace } from '../../emulator/pci/config-space.js';
import plugin from './index.js';
import { formatGuid, formatMac, macAddress, nodeGuid } from './port/addresses.js';

describe('rdma', () => {
  let context: ReturnType<typeof fakeContext>;
  let fn: FakeFunction;

  function create(link: 'roce' | 'ib', instance: number): FakeFunction {
    context = fakeContext(`rdma${instance}`, instance);
    const created = plugin.create(plugin.options.parse({ link }), context) as readonly LegacyFunction[];
    return new FakeBus(4096).add(`rdma${instance}`, created[0]!);
  }

  beforeEach(() => {
    fn = create('roce', 1);
  });

  it('is a ConnectX-7 whose class follows the link', () => {
    assert.deepEqual(fn.model.identity, {
      vendorId: 0x15b3,
      deviceId: 0x1021,
      subsystemVendorId: 0x15b3,
      subsystemId: 0x0058,
      classCode: 0x020000,
      revisionId: 0,
    });
    assert.equal(create('ib', 0).model.identity.classCode, 0x020700);
  });

  it('has its capabilities where the card has them', () => {
    assert.deepEqual(
      new ConfigSpace(fn.model).capabilities.map(({ capability, offset }) => [capability.name, offset]),
      [
        ['Power Management', 0x40],
        ['PCI Express', 0x60],
        ['MSI-X', 0x9c],
        ['Vendor-Specific', 0xc0],
      ],
    );
  });

  it('leaves the pages of the MSI-X table and pending bits alone', () => {
    for (const { offset, sizeBytes } of fn.model.bars[0]!.parts) {
      assert.ok(offset + sizeBytes <= 0x2000 || offset >= 0x4000, `part at 0x${offset.toString(16)}`);
    }
  });

  it('gives every instance addresses of its own', () => {
    const { mac, nodeGuid: guid } = fn.model.inspect!() as { mac: string; nodeGuid: string };
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
