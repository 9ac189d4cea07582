/**
 * An AMD data-centre GPU that the stock amdgpu driver accepts. What is and is not modelled: README.md beside this file.
 */

import { byteSize, definePlugin, packageFile } from 'ghostbus';
import { z } from 'zod';
import { bench } from './bench.js';
import { commands } from './commands.js';
import { Gpu } from './gpu.js';
import { firmwareFiles } from './guest/firmware-stubs.js';
import { matrix } from './matrix/index.js';
import { PRODUCTS } from './product/product.js';

const size = byteSize({ minBytes: 2 ** 28, maxBytes: 2 ** 36, powerOfTwo: true });

export default definePlugin({
  name: 'gpu',
  description: 'an AMD GPU for the stock amdgpu driver: VRAM, SDMA, compute rings without shader cores',
  options: z.strictObject({
    vram: size.prefault('1G').describe('VRAM, 256M to 64G'),
    bar: size.optional().describe('how much of it the CPU and peers see through BAR0; all of it if not given'),
    id: z
      .enum(['7af0', '740f'])
      .default('7af0')
      .describe(`7af0: synthetic; 740f: MI210, with amdgpu ${PRODUCTS['740f'].moduleParameters}`),
    hive: z
      .string()
      .optional()
      .describe('names of the GPUs of an XGMI hive in order, gpu0+gpu1; needs id=740f on each'),
  }),
  guest: {
    drivers: ['amdgpu'],
    files: ({ id }) => firmwareFiles(id),
    moduleOptions: ({ id }): Record<string, string> => {
      const { moduleParameters } = PRODUCTS[id];
      return moduleParameters === undefined ? {} : { amdgpu: moduleParameters };
    },
    programs: [packageFile(import.meta.url, 'plugins/gpu/guest')],
    packages: ['libdrm-amdgpu1'],
    buildPackages: ['libdrm-dev'],
  },
  commands,
  create: (options, context) => new Gpu(context, options),
  matrix,
  bench,
});
