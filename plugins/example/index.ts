/** A small DMA copy engine: the tutorial for plugin authors. Start with README.md beside this file. */

import { byteSize, definePlugin } from 'ghostbus';
import { z } from 'zod';
import { ExampleFunction } from './function.js';
import { matrix } from './matrix/index.js';

const MIB = 2 ** 20;

export default definePlugin({
  name: 'example',
  description: 'a small DMA copy engine with its own memory: the tutorial for plugin authors',
  options: z.strictObject({
    memory: byteSize({ minBytes: 2 * MIB, maxBytes: 2 ** 36, powerOfTwo: true })
      .prefault('16M')
      .describe('device memory behind BAR2; at least 2M, so that the guest kernel can share it peer-to-peer'),
  }),
  drivers: ['ghostbus_example'],
  create: (options, context) => new ExampleFunction(context, options.memory),
  matrix,
});
