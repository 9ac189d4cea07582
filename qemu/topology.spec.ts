import assert from 'node:assert/strict';
import { layOutFunctions, topologies } from './topology.js';

const functions = ['a', 'b', 'c'].map((id) => ({ id, socketPath: `/run/${id}.sock` }));

describe('layOutFunctions', () => {
  for (const topology of topologies) {
    it(`${topology}: every bus exists before it is used, and chassis with slot are unique`, () => {
      const { devices } = layOutFunctions(functions, { topology });
      const buses = new Set(['pcie.0']);
      const places = new Set<string>();
      for (const device of devices) {
        assert.ok(buses.has(device.bus ?? ''), `${device.id} is on ${device.bus}`);
        buses.add(device.id);
        if (device.chassis === undefined) continue;
        const place = `${device.chassis}.${device.slot}`;
        assert.ok(!places.has(place), `${place} twice`);
        places.add(place);
      }
      assert.deepEqual(
        devices.filter(({ driver }) => driver === 'vfio-user-pci').map(({ id, bus }) => [id, bus]),
        [
          ['a', 'port0'],
          ['b', 'port1'],
          ['c', 'port2'],
        ],
      );
    });
  }

  it('redirects peer-to-peer requests only where asked', () => {
    assert.deepEqual(layOutFunctions(functions, { topology: 'switch' }).kernelArgs, []);
    const { devices, kernelArgs } = layOutFunctions(functions, { topology: 'switch-acs' });
    assert.deepEqual(kernelArgs, ['pci=config_acs=11xx@pci:1b36:000c']);
    const below = devices.filter(({ bus }) => bus === 'switch').map(({ driver }) => driver);
    assert.deepEqual(below, ['pcie-root-port', 'pcie-root-port', 'pcie-root-port']);
  });

  it('puts the IOMMU first', () => {
    const { devices, kernelArgs } = layOutFunctions(functions, { viommu: true });
    assert.equal(devices[0]?.driver, 'intel-iommu');
    assert.deepEqual(kernelArgs, ['intel_iommu=on']);
  });

  it('refuses what QEMU would refuse', () => {
    const named = (id: string) => ({ id, socketPath: '/s' });
    assert.throws(() => layOutFunctions([named('0a')]), /"0a" cannot be a QEMU device id/);
    assert.throws(() => layOutFunctions([named('a'), named('a')]), /two functions have the id "a"/);
    const many = Array.from({ length: 21 }, (_, index) => named(`f${index}`));
    assert.throws(() => layOutFunctions(many), /21 functions do not fit/);
  });
});
