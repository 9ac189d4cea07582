/** An AMD data-centre GPU that the stock amdgpu driver accepts. What is and is not modelled: README.md beside this file. */
import { z } from 'zod';
import { byteSize } from '../../emulator/options.js';
import { definePlugin } from '../../emulator/plugin.js';
import { firmwareFiles } from './firmware.js';
import { Gpu } from './gpu.js';

export default definePlugin({
  name: 'gpu',
  description: 'an AMD GPU for the stock amdgpu driver: VRAM, SDMA, compute rings without shader cores',
  options: z.strictObject({
    vram: byteSize({ minBytes: 2 ** 28, maxBytes: 2 ** 36, powerOfTwo: true })
      .prefault('1G')
      .describe('VRAM behind BAR0, 256M to 64G'),
  }),
  drivers: ['amdgpu'],
  create: (options, context) => new Gpu(context, options.vram),
  guestFiles: () => firmwareFiles(),
});
