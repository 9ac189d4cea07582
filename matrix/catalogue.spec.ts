import assert from 'node:assert/strict';
import { type ResolvedDevice, resolveDevices } from '../emulator/device-spec.js';
import { type EmulatorOptions, startEmulator } from '../emulator/emulator.js';
import { Cleanup } from '../session/cleanup.js';
import { sessionTools } from '../session/tools.js';
import { WatchedLog } from '../session/watched-log.js';
import { catalogueOf, driversOf, loadCatalogue, type MatrixCatalogue } from './catalogue.js';
import { MatrixMachine } from './machine.js';
import { builtIn, exporterWith, importerWith, participantWith, toaster } from './test/made-up.js';
import { topologies } from './topologies.js';

const namesAndOptions = ({ devices }: Pick<MatrixCatalogue, 'devices'>) =>
  devices.map(({ plugin, options }) => [plugin.name, options] as const);

/** What a machine gives its emulator, which then does not start. */
async function devicesServed(catalogue: MatrixCatalogue, topology: string): Promise<readonly ResolvedDevice[]> {
  let served: readonly ResolvedDevice[] = [];
  const startEmulator = async ({ devices }: EmulatorOptions) => {
    served = devices;
    throw new Error('that is enough');
  };
  const cleanup = new Cleanup();
  const choice = { catalogue, kernel: 'latest', plan: topologies.find(({ name }) => name === topology)! };
  const context = { tools: { ...sessionTools, startEmulator }, progress: () => undefined, cleanup };
  await assert.rejects(MatrixMachine.start(choice, context), /that is enough/);
  await cleanup.end();
  return served;
}

const names = (all: readonly { readonly name: string }[]) => all.map(({ name }) => name);

describe('the matrix’s catalogue', () => {
  it('has what it always had, in that order', async () => {
    assert.deepEqual(names(builtIn.exporters), [
      ...['amdgpu-vram', 'habanalabs-hbm', 'vfio-bar', 'mlx5-uar'],
      ...['udmabuf', 'dma-heap'],
    ]);
    assert.deepEqual(names(builtIn.importers), ['amdgpu', 'mlx5', 'mlx5-pinned', 'iommufd']);
    const specs = ['gpu,vram=256M', 'gpu,vram=256M', 'habana', 'rdma,functions=2', 'example,memory=128M', 'example'];
    assert.deepEqual(namesAndOptions(builtIn), namesAndOptions({ devices: await resolveDevices(specs) }));
    assert.deepEqual(builtIn.withoutOwnDriver, ['example']);
  });

  it('has the functions that export and import', async () => {
    const emulator = await startEmulator({ devices: builtIn.devices, log: new WatchedLog() });
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
    const catalogue = catalogueOf([{ ...participant, asked: { plugin: './toaster', options: { heat: '7' } } }]);
    assert.deepEqual(namesAndOptions(catalogue), [
      ['toaster', { slots: '2', heat: '7' }],
      ['toaster', { heat: '7' }],
    ]);
    assert.deepEqual(catalogue.withoutOwnDriver, ['toaster']);
  });

  it('parses the options of a device once, whatever number of machines has it', async () => {
    const { plugin, ...participant } = participantWith({ instances: [{ slots: '2' }, {}] });
    let parsings = 0;
    const counting = plugin.options.transform((options) => {
      parsings++;
      return options;
    });
    const catalogue = catalogueOf([{ ...participant, plugin: { ...plugin, options: counting } }]);
    for (const topology of ['host-bridge', 'switch']) {
      assert.deepEqual(await devicesServed(catalogue, topology), catalogue.devices, topology);
    }
    assert.equal(parsings, 2);
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
    const { plugin, ...participant } = participantWith({}, 'kettle');
    const { matrix: _, ...partless } = plugin;
    assert.throws(() => catalogueOf([{ ...participant, plugin: partless }]), /kettle has no part in the matrix/);
  });
});
