/** A Gaudi accelerator, first stage: what it looks like on the bus, its memory, and its registers by name. */
import { z } from 'zod';
import { byteSize } from '../../emulator/options.js';
import { definePlugin } from '../../emulator/plugin.js';
import { HBM_BYTES } from './address-map.js';
import { HabanaFunction } from './function.js';

export default definePlugin({
  name: 'habana',
  description: 'a Gaudi accelerator (1da3:1000); first stage: identity, memory and registers, no driver yet',
  options: z.strictObject({
    // Below 512 MiB the driver's page tables, which end at 0x1C000000, do not fit (L/gaudi/gaudiP.h).
    hbm: byteSize({ minBytes: 2 ** 29, maxBytes: HBM_BYTES, powerOfTwo: true })
      .prefault('32G')
      .describe('HBM behind BAR4; costs nothing until touched'),
  }),
  drivers: ['habanalabs'],
  create: (options, context) => new HabanaFunction(context, options.hbm),
});
