import assert from 'node:assert/strict';
import { resolveDevices } from '../emulator/device-spec.js';
import { startEmulator } from '../emulator/emulator.js';
import { WatchedLog } from '../session/watched-log.js';
import { catalogueOf, driversOf, loadCatalogue } from './catalogue.js';
import { builtIn, exporterWith, importerWith, participantWith, toaster } from './test/made-up.js';

const names = (all: readonly { readonly name: string }[]) => all.map(({ name }) => name);

describe('the matrix’s catalogue', () => {
  it('has what it always had, in that order', () => {
    assert.deepEqual(names(builtIn.exporters), [
      ...['amdgpu-vram', 'habanalabs-hbm', 'vfio-bar', 'mlx5-uar'],
      ...['udmabuf', 'dma-heap'],
    ]);
    assert.deepEqual(names(builtIn.importers), ['amdgpu', 'mlx5', 'mlx5-pinned', 'iommufd']);
    assert.deepEqual(
      builtIn.devices.map(({ plugin, options }) => [plugin, options]),
      [
        ['gpu', { vram: '256M' }],
        ['gpu', { vram: '256M' }],
        ['habana', {}],
        ['rdma', { functions: '2' }],
        ['example', { memory: '128M' }],
        ['example', {}],
      ],
    );
    assert.deepEqual(builtIn.withoutOwnDriver, ['example']);
  });

  it('has the functions that export and import', async () => {
    const emulator = await startEmulator({ devices: await resolveDevices(builtIn.devices), log: new WatchedLog() });
    const served = names(emulator.functions);
    await emulator.stop();
    assert.deepEqual(served, ['gpu0', 'gpu1', 'habana0', 'rdma0p0', 'rdma0p1', 'example0', 'example1']);
    for (const { name, functionName } of [...builtIn.exporters, ...builtIn.importers]) {
      assert.ok(functionName === undefined || served.includes(functionName), `${name} is of ${functionName}`);
    }
  });

  it('puts memory of functions before doorbells, and the guest’s memory last', () => {
    const doorbell = exporterWith({ name: 'lever', doorbell: { offset: 0, bytes: 4 } });
    const { exporters } = catalogueOf([
      participantWith({ exporters: [doorbell] }),
      participantWith({ exporters: [exporterWith()] }, 'kettle'),
    ]);
    assert.deepEqual(names(exporters), ['toast', 'lever', 'udmabuf', 'dma-heap']);
  });

  it('gives the options of --device to each instance of that device', () => {
    const participant = participantWith({ instances: [{ slots: '2', heat: '3' }, {}], ownDriver: false });
    const { devices, withoutOwnDriver } = catalogueOf([
      { ...participant, spec: { plugin: './toaster', options: { heat: '7' } } },
    ]);
    assert.deepEqual(devices, [
      { plugin: './toaster', options: { slots: '2', heat: '7' } },
      { plugin: './toaster', options: { heat: '7' } },
    ]);
    assert.deepEqual(withoutOwnDriver, ['toaster']);
  });

  it('has a driver once, whoever uses it', () => {
    const participant = participantWith({ exporters: [exporterWith()], importers: [importerWith()] });
    assert.deepEqual(names(driversOf(catalogueOf([participant]))), ['toaster', 'udmabuf', 'dma-heap']);
    assert.ok(driversOf(catalogueOf([participant])).includes(toaster));
  });

  for (const [what, matrix, complaint] of [
    ['an exporter’s name twice', { exporters: [exporterWith({ name: 'udmabuf' })] }, /exporters are called udmabuf/],
    ['an importer’s name twice', { importers: [importerWith(), importerWith()] }, /importers are called crumbs/],
    ['a name with a comma', { exporters: [exporterWith({ name: 'a,b' })] }, /called "a,b": use lower-case letters/],
  ] as const) {
    it(`refuses ${what}`, () => {
      assert.throws(() => catalogueOf([participantWith(matrix)]), complaint);
    });
  }

  it('refuses a device that takes part already, and one that has no part', async () => {
    await assert.rejects(loadCatalogue([{ plugin: 'gpu', options: {} }]), /plugins are called gpu/);
    const spec = { plugin: './kettle', options: {} };
    assert.throws(() => catalogueOf([{ spec, plugin: { name: 'kettle' } }]), /kettle has no part in the matrix/);
  });
});
