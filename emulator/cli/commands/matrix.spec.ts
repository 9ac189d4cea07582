import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { loadCatalogue } from '../../../matrix/catalogue.js';
import { UsageError } from '../../../session/exit-status.js';
import { chosenCatalogue, chosenKernels, chosenNames, namesOf } from './matrix.js';

const known = namesOf(await loadCatalogue());

describe('ghostbus matrix', () => {
  it('takes everything when nothing is named', () => {
    assert.deepEqual(chosenNames('importer', undefined, known.importer), ['amdgpu', 'mlx5', 'mlx5-pinned', 'iommufd']);
  });

  it('takes the named ones, with commas between', () => {
    assert.deepEqual(chosenNames('topology', 'switch,acs', known.topology), ['switch', 'acs']);
  });

  it('refuses a name that there is not, and lists those there are', () => {
    assert.throws(
      () => chosenNames('importer', 'mlx5,nvidia', known.importer),
      (error: Error) => {
        assert.ok(error instanceof UsageError);
        assert.match(error.message, /there is no "nvidia"; there are amdgpu, mlx5/);
        return true;
      },
    );
  });
});

/** A device in a file of its own, as somebody else has it. */
const TOASTER = `
import { definePlugin } from '${new URL('../../plugin/index.js', import.meta.url).href}';
import { z } from '${import.meta.resolve('zod')}';

export default definePlugin({
  name: 'toaster',
  description: 'a toaster',
  options: z.strictObject({ slots: z.coerce.number().default(2) }),
  create: () => [],
  matrix: {
    instances: [{ slots: '4' }],
    exporters: [{
      name: 'toast',
      title: 'toast',
      driver: { name: 'toaster', needs: [] },
      functionName: 'toaster0',
      outlives: true,
      command: () => ['export-toast'],
      withoutRoute: { kind: 'refused', errno: 'EPERM', because: 'it burns' },
    }],
  },
});
`;

describe('the devices of ghostbus matrix', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ghostbus-toaster-'));
  const path = join(folder, 'index.mjs');
  writeFileSync(path, TOASTER);

  after(() => rmSync(folder, { recursive: true }));

  it('bring their exporters, whose names --exporter then takes', async () => {
    const catalogue = await chosenCatalogue([path]);
    assert.deepEqual(chosenNames('exporter', 'toast', namesOf(catalogue).exporter), ['toast']);
    const device = catalogue.devices.at(-1);
    assert.deepEqual([device?.moduleUrl, device?.options], [pathToFileURL(path).href, { slots: 4 }]);
    assert.deepEqual(namesOf(catalogue).importer, known.importer);
  });

  it('take options, which are checked before anything boots', async () => {
    const { devices } = await chosenCatalogue([`${path},slots=3`]);
    assert.deepEqual(devices.at(-1)?.options, { slots: 3 });
    await assert.rejects(chosenCatalogue([`${path},slots=many`]), /--device .*slots: /);
  });

  for (const [text, complaint] of [
    ['', /no plugin name/],
    ['./no/such/device', /--device \.\/no\/such\/device: plugin path .* does not exist/],
    ['example', /two of the matrix's plugins are called example/],
  ] as const) {
    it(`are the command line’s fault when they cannot take part: "${text}"`, async () => {
      await assert.rejects(chosenCatalogue([text]), (error: Error) => {
        assert.ok(error instanceof UsageError);
        assert.match(error.message, complaint);
        return true;
      });
    });
  }
});

describe('the kernels of ghostbus matrix', () => {
  it('are Debian’s by name, each once', async () => {
    const kernels = await chosenKernels('latest,lts,latest');
    assert.deepEqual(
      kernels.map(({ choice }) => choice),
      ['latest', 'lts'],
    );
  });

  it('are paths otherwise, and an unknown one is the command line’s fault', async () => {
    for (const text of ['stable', 'lts,/no/such/kernel', '', 'lts,']) {
      await assert.rejects(chosenKernels(text), UsageError, text);
    }
  });

  it('need a kernel at the path', async () => {
    await assert.rejects(chosenKernels(tmpdir()), /No kernel in/);
  });
});
