import assert from 'node:assert/strict';
import { ptysReg } from '../layouts/access-registers.js';
import {
  modifyNicVportContextIn,
  queryHcaVportContextOut,
  queryNicVportContextIn,
  queryNicVportContextOut,
  queryVportStateOut,
} from '../layouts/commands.js';
import {
  ads,
  hcaVportContext,
  macAddressLayout,
  modifyNicVportFieldSelect,
  nicVportContext,
} from '../layouts/contexts.js';
import { bytesOf, subview } from '../layouts/layout.js';
import { gidOf, type TestDriver, twoDrivers } from '../test/driver.js';

const PTYS = 0x5004;
const header = () => new DataView(new ArrayBuffer(16));

function setAddresses(driver: TestDriver, type: number, addresses: readonly number[]): void {
  const input = new DataView(new ArrayBuffer(modifyNicVportContextIn.sizeBytes + 8 * addresses.length));
  const select = subview(input, modifyNicVportContextIn.byteOf('field_select'), 4);
  modifyNicVportFieldSelect.set(select, 'addresses_list', 1);
  const context = modifyNicVportContextIn.byteOf('nic_vport_context');
  nicVportContext.fill(input, { allowed_list_type: type, allowed_list_size: addresses.length }, context);
  addresses.forEach((address, index) => {
    const at = context + nicVportContext.byteOf('current_uc_mac_address') + 8 * index;
    macAddressLayout.set(input, 'mac_addr_47_32', Math.floor(address / 2 ** 32), at);
    macAddressLayout.set(input, 'mac_addr_31_0', address % 2 ** 32, at);
  });
  driver.run('MODIFY_NIC_VPORT_CONTEXT', input);
}

describe('port', () => {
  it('tells its permanent address, and keeps the lists that the driver gives it', () => {
    const { a } = twoDrivers();
    const context = queryNicVportContextOut.part(a.run('QUERY_NIC_VPORT_CONTEXT').output, 'nic_vport_context');
    const at = nicVportContext.byteOf('permanent_address');
    assert.equal(macAddressLayout.get(context, 'mac_addr_47_32', at), 0x0267);
    assert.equal(macAddressLayout.get(context, 'mac_addr_31_0', at), 0x62000000);
    setAddresses(a, 1, [0x333300000001]);
    const input = header();
    queryNicVportContextIn.set(input, 'allowed_list_type', 1);
    const { output } = a.run('QUERY_NIC_VPORT_CONTEXT', input);
    const start = queryNicVportContextOut.byteOf('nic_vport_context');
    assert.equal(nicVportContext.get(output, 'allowed_list_size', start), 1);
    assert.equal(a.adapter.vport.acceptsMac(0x333300000001), true);
    assert.equal(a.adapter.vport.acceptsMac(0x333300000002), false);
    assert.equal(a.adapter.vport.acceptsMac(0xffffffffffff), true, 'broadcast');
  });

  it('tells the driver when the cable goes and comes', () => {
    const { a } = twoDrivers();
    const { ring } = a.createEq(0, 1n << 9n);
    a.control('link', { state: 'down' });
    assert.deepEqual([a.memory.getUint8(ring + 1), a.memory.getUint8(ring + 3)], [0x09, 1]);
    assert.equal(a.memory.getUint8(ring + 40), 0x10, 'port 1');
    assert.equal(queryVportStateOut.get(a.run('QUERY_VPORT_STATE').output, 'state'), 0);
    a.control('link', { state: 'up' });
    assert.deepEqual([a.memory.getUint8(ring + 65), a.memory.getUint8(ring + 67)], [0x09, 4]);
    assert.throws(() => a.control('link', { state: 'sideways' }), /up or down/);
  });

  it('says how fast it is', () => {
    const { a } = twoDrivers({ speed: '25' });
    // include/linux/mlx5/port.h MLX5E_25GBASE_CR
    assert.equal(ptysReg.get(a.readRegister(PTYS), 'eth_proto_oper'), 2 ** 27);
  });

  it('leaves the datagrams room for the headers of RoCE', () => {
    for (const [mtu, payload] of [
      ['1500', 1024],
      ['4200', 4096],
      ['9000', 4096],
      ['576', 256],
    ] as const) {
      assert.equal(twoDrivers({ mtu }).a.adapter.vport.activeMtuBytes, payload, `MTU ${mtu}`);
    }
  });

  it('is active by itself on InfiniBand, and found by its LID', () => {
    const { a, b } = twoDrivers({ link: 'ib' });
    const contexts = [a, b].map((driver) =>
      queryHcaVportContextOut.part(driver.run('QUERY_HCA_VPORT_CONTEXT').output, 'hca_vport_context'),
    );
    assert.deepEqual(
      contexts.map((context) => hcaVportContext.get(context, 'vport_state')),
      [4, 4],
    );
    const path = ads.create();
    ads.set(path, 'rlid', hcaVportContext.get(contexts[1]!, 'lid'));
    assert.equal(a.adapter.cable.resolvePath(path), b.adapter.cable);
  });

  it('is found by its GID on Ethernet, among equals by its MAC address', () => {
    const { a, b } = twoDrivers();
    b.setGid(1, gidOf(9));
    a.setGid(1, gidOf(9));
    const path = ads.create();
    bytesOf(ads.part(path, 'rgid_rip')).set(gidOf(9));
    assert.equal(a.adapter.cable.resolvePath(path), a.adapter.cable, 'without a MAC address its own');
    ads.set(path, 'rmac_47_32', Math.floor(b.adapter.vport.mac / 2 ** 32));
    ads.set(path, 'rmac_31_0', b.adapter.vport.mac % 2 ** 32);
    assert.equal(a.adapter.cable.resolvePath(path), b.adapter.cable);
    bytesOf(ads.part(path, 'rgid_rip')).set(gidOf(77));
    assert.equal(a.adapter.cable.resolvePath(path), undefined);
  });
});
