/** A ConnectX-7 adapter, first stage: what it looks like on the bus, and its registers by name. */
import { z } from 'zod';
import { definePlugin } from '../../emulator/plugin.js';
import { RdmaFunction } from './function.js';

export default definePlugin({
  name: 'rdma',
  description: 'a ConnectX-7 RDMA adapter (15b3:1021); first stage: identity and registers, no driver yet',
  options: z.strictObject({
    link: z
      .enum(['roce', 'ib'])
      .default('roce')
      .describe('RDMA over Ethernet, or InfiniBand; so far only the class code'),
  }),
  drivers: ['mlx5_core', 'mlx5_ib'],
  create: (options, context) => new RdmaFunction(context, options.link),
});
