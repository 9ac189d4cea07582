/** A device that is nobody's, for specs: every property of an exporter and an importer as a test wants it. */
import { z } from 'zod';
import {
  definePlugin,
  type FunctionExporter,
  type Importer,
  type MatrixDriver,
  type PluginMatrix,
} from '../../emulator/plugin/index.js';
import { catalogueOf, loadCatalogue, type MatrixCatalogue, type Participant } from '../catalogue.js';

export const toaster: MatrixDriver = {
  name: 'toaster',
  needs: ['TOASTER'],
  load: 'modprobe toaster',
  prepare: ({ address }) => `until_true '[ -e /dev/toaster ]'; note ${address('toaster0')} slot7`,
};

export function exporterWith(more: Partial<FunctionExporter> = {}): FunctionExporter {
  return {
    name: 'toast',
    title: 'toast',
    driver: toaster,
    functionName: 'toaster0',
    outlives: true,
    command: ({ address }, bytes) => ['export-toast', address('toaster0'), String(bytes)],
    withoutRoute: { kind: 'refused', errno: 'EBADSLT', because: 'toaster_map gives -EBADSLT' },
    ...more,
  };
}

export function importerWith(more: Partial<Importer> = {}): Importer {
  return {
    name: 'crumbs',
    title: 'crumbs',
    driver: toaster,
    functionName: 'toaster1',
    command: ({ noted, address }) => ['import-crumbs', noted(address('toaster0'))],
    transfers: [['read', 'read']],
    ringBytes: 64,
    ownEnd: 'function',
    steps: { attach: 'plug', map: 'toast' },
    ...more,
  };
}

export function participantWith(matrix: Partial<PluginMatrix>, name = 'toaster'): Participant {
  return {
    asked: { plugin: name, options: {} },
    moduleUrl: `file:///somewhere/${name}.js`,
    plugin: definePlugin({
      name,
      description: `a ${name}`,
      options: z.record(z.string(), z.string()),
      create: () => [],
      matrix: { instances: [{}], ...matrix },
    }),
  };
}

/** The made-up device alone with what exports the guest's memory. */
export function catalogueWith(exporter: FunctionExporter, importer: Importer): MatrixCatalogue {
  return catalogueOf([participantWith({ exporters: [exporter], importers: [importer] })]);
}

/** What takes part without `--device`. */
export const builtIn: MatrixCatalogue = await loadCatalogue();
