import assert from 'node:assert/strict';
import { ConfigSpace } from '../../emulator/pci/config-space.js';
import { FakeBus, type FakeFunction, fakeContext } from '../../emulator/testing.js';
import { formatGuid, formatMac, macAddress, nodeGuid } from './addresses.js';
import plugin from './index.js';

describe('rdma', () => {
  let context: ReturnType<typeof fakeContext>;
  let fn: FakeFunction;

  function create(link: 'roce' | 'ib', instance: number): FakeFunction {
    context = fakeContext(`rdma${instance}`, instance);
    const created = plugin.create({ link }, context);
    assert.ok('bars' in created);
    return new FakeBus(4096).add(`rdma${instance}`, created);
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
      ],
    );
  });

  it('leaves the pages of the MSI-X table and pending bits alone', () => {
    for (const { offset, sizeBytes } of fn.model.bars[0]!.parts) {
      assert.ok(offset + sizeBytes <= 0x2000 || offset >= 0x4000, `part at 0x${offset.toString(16)}`);
    }
  });

  // include/linux/mlx5/device.h struct mlx5_init_seg
  for (const [register, offset] of [
    ['init_seg.FW_REV', 0x0],
    ['init_seg.CMD_DBELL', 0x18],
    ['init_seg.INITIALIZING', 0x1fc],
    ['init_seg.HEALTH_ASSERT_VAR[5]', 0x214],
    ['init_seg.HEALTH_FW_VER', 0x230],
    ['init_seg.HEALTH_COUNTER', 0x1010],
    ['init_seg.REAL_TIME_L', 0x1044],
    ['init_seg+0x20', 0x20],
    ['UAR.CQ_ARM_INDEX', 0x10020],
    ['UAR.EQ_UPDATE', 0x1ff_f048],
    ['UAR.SEND_OPCODE[1]', 0x12_3900],
    ['UAR.SEND_QUEUE[7]', 0x1ff_ff04],
  ] as const) {
    it(`warns once by the name of ${register}`, () => {
      fn.write(0, offset, 1);
      fn.read(0, offset);
      fn.read(0, offset);
      const warnings = context.log.records.filter((record) => record.level === 'warn');
      assert.equal(warnings.length, 1);
      assert.ok(warnings[0]!.message.endsWith(register), warnings[0]!.message);
      const { unimplemented } = fn.model.inspect!() as { unimplemented: unknown[] };
      assert.deepEqual(unimplemented, [{ register, reads: 2, writes: 1 }]);
    });
  }

  it('takes a doorbell of eight bytes as its two halves', () => {
    fn.write64(0, 0x10020, 0x0000_0002_0000_0001n);
    const { unimplemented } = fn.model.inspect!() as { unimplemented: { register: string }[] };
    assert.deepEqual(
      unimplemented.map(({ register }) => register),
      ['UAR.CQ_ARM_INDEX', 'UAR.CQ_ARM_NUMBER'],
    );
  });

  it('forgets what was written when it is reset', () => {
    fn.write(0, 0x10, 0xff);
    fn.model.reset('flr');
    assert.equal(fn.read(0, 0x10), 0);
  });

  it('gives every instance addresses of its own', () => {
    const { mac, nodeGuid: guid } = fn.model.inspect!() as { mac: string; nodeGuid: string };
    assert.equal(mac, '02:67:62:00:00:01');
    assert.equal(guid, '0267:62ff:fe00:0001');
    assert.equal(formatMac(macAddress(2 ** 24 - 1)), '02:67:62:ff:ff:ff');
    assert.equal(formatGuid(nodeGuid(2 ** 24 - 1)), '0267:62ff:feff:ffff');
    assert.throws(() => macAddress(2 ** 24), RangeError);
  });

  it('speaks RoCE unless told otherwise', () => {
    assert.deepEqual(plugin.options.parse({}), { link: 'roce' });
    assert.equal(plugin.options.safeParse({ link: 'token-ring' }).success, false);
  });
});
