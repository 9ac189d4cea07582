import assert from 'node:assert/strict';
import { type AttachedFunction, layOutFunctions, layOutSeats, topologies } from './topology.js';

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

const GIB = 2 ** 30;

function withBars(count: number, prefetchable: number, other = 0): AttachedFunction[] {
  return Array.from({ length: count }, (_, index) => ({
    id: `f${index}`,
    socketPath: '/s',
    barBytes: { prefetchable, other },
  }));
}

describe('layOutSeats', () => {
  for (const topology of topologies) {
    it(`${topology}: a seat for each function, on a bus that exists and where a cold machine has its functions`, () => {
      const machine = layOutSeats(functions, { topology });
      assert.ok(machine);
      const { devices, placeholders, seats } = machine;
      assert.deepEqual(seats.slice(0, 3), ['port0', 'port1', 'port2']);
      const cold = layOutFunctions(functions, { topology }).devices;
      for (const seat of seats.slice(0, 3)) {
        const port = devices.find(({ id }) => id === seat);
        const { driver, bus, addr } = cold.find(({ id }) => id === seat)!;
        assert.deepEqual([port?.driver, port?.bus, port?.addr], [driver, bus, addr]);
      }
      assert.equal(devices.filter(({ driver }) => driver === 'vfio-user-pci').length, 0);
      // Room is reserved by the port where it can, else by what is in its slot at boot.
      const reserved = (seat: string) =>
        devices.find(({ id }) => id === seat)?.['pref64-reserve'] ??
        placeholders.find(({ bus }) => bus === seat)?.membar;
      for (const seat of seats) assert.equal(reserved(seat), 64 * GIB, seat);
    });
  }

  it('is one machine for all that it has room for', () => {
    assert.deepEqual(layOutSeats([]), layOutSeats(withBars(6, 33 * GIB)));
    assert.deepEqual(layOutSeats(withBars(7, GIB)), layOutSeats(withBars(20, 16 * GIB)));
  });

  it('reserves no more than any processor can address', () => {
    for (const fns of [[], withBars(20, 16 * GIB), withBars(1, 65 * GIB), withBars(3, 65 * GIB)]) {
      const { devices } = layOutSeats(fns)!;
      const all = devices.reduce((sum, device) => sum + Number(device['pref64-reserve'] ?? 0), 0);
      assert.ok(all <= 448 * GIB, `${fns.length}: ${all / GIB} GiB`);
    }
  });

  it('makes its seats as large as the largest function', () => {
    const { devices } = layOutSeats(withBars(2, 64 * GIB + 1))!;
    assert.deepEqual(
      devices.map((device) => device['pref64-reserve']),
      [128 * GIB, 128 * GIB, 64 * GIB],
    );
  });

  it('says when there is no room', () => {
    assert.equal(layOutSeats(withBars(7, 64 * GIB)), undefined);
    assert.equal(layOutSeats(withBars(1, 512 * GIB)), undefined);
    assert.equal(layOutSeats(withBars(1, GIB, 33 * 2 ** 20)), undefined);
    assert.throws(() => layOutSeats(withBars(21, GIB)), /21 functions do not fit/);
  });

  it('puts the IOMMU first and redirects where asked', () => {
    const { devices, kernelArgs } = layOutSeats(functions, { viommu: true, topology: 'switch-acs' })!;
    assert.equal(devices[0]?.driver, 'intel-iommu');
    assert.deepEqual(kernelArgs, layOutFunctions(functions, { viommu: true, topology: 'switch-acs' }).kernelArgs);
  });
});
