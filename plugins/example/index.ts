/** A small DMA copy engine: the tutorial for plugin authors. Start with README.md beside this file. */

import { byteSize, command, definePlugin, packageFile } from 'ghostbus';
import { z } from 'zod';
import { ExampleFunction } from './function.js';
import { matrix } from './matrix/index.js';
import type { ExampleModel } from './model.js';

const MIB = 2 ** 20;

export default definePlugin({
  name: 'example',
  description: 'a small DMA copy engine with its own memory: the tutorial for plugin authors',
  options: z.strictObject({
    memory: byteSize({ minBytes: 2 * MIB, maxBytes: 2 ** 36, powerOfTwo: true })
      .prefault('16M')
      .describe('device memory behind BAR2; at least 2M, so that the guest kernel can share it peer-to-peer'),
  }),
  guest: {
    drivers: ['ghostbus_example'],
    programs: [packageFile(import.meta.url, 'plugins/example/guest')],
    modules: () => [
      {
        folder: packageFile(import.meta.url, 'plugins/example/guest/driver'),
        purpose: 'driver',
        why: 'no stock driver knows this device',
      },
    ],
  },
  commands: {
    'fail-next': command({
      description: 'makes the next descriptor complete with an error: error paths need no broken hardware',
      arguments: z.strictObject({
        status: z.int('needs a status from 2 to 65535').min(2).max(0xffff).describe('what the descriptor says then'),
      }),
      run: (model: ExampleModel, { status }) => {
        model.failNext(status);
        return { status };
      },
    }),
  },
  create: (options, context) => new ExampleFunction(context, options.memory),
  matrix,
});
