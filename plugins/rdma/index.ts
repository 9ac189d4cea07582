/** A ConnectX-7 adapter for the stock drivers mlx5_core and mlx5_ib. */

import { definePlugin, packageFile } from 'ghostbus';
import { z } from 'zod';
import { bench } from './bench.js';
import { commands } from './commands.js';
import { RdmaFunction } from './function.js';
import { matrix } from './matrix/index.js';
import { macAddress, nodeGuid } from './port/addresses.js';
import { SPEED_BITS, type Speed } from './port/profile.js';
import { Recorders } from './wire/recorder.js';

const MAX_FUNCTIONS = 16;
/**
 * mlx5_satisfy_startup_pages (core/pagealloc.c) asks for both at start and would take 0. Not 0, so that lending pages
 * and taking them back is exercised; few, and not the same, as PageSupply has no other use for them.
 */
const PAGES = { boot: 4, init: 16 };
const speeds = Object.keys(SPEED_BITS).map(Number);

const options = z.strictObject({
  link: z.enum(['roce', 'ib']).default('roce').describe('RDMA over Ethernet with a network interface, or InfiniBand'),
  functions: z.coerce.number().int().min(1).max(MAX_FUNCTIONS).default(1).describe('how many adapters, on one switch'),
  mac: z
    .string()
    .regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i)
    .optional()
    .describe('MAC address of the first adapter; the others count up'),
  mtu: z.coerce.number().int().min(576).max(9000).default(1500).describe('MTU of the network interface at start'),
  pcap: z
    .string()
    .min(1)
    .optional()
    .describe('file on the host that gets every packet as a frame (Ethernet link only)'),
  speed: z.coerce
    .number()
    .refine((value): value is Speed => speeds.includes(value), `one of ${speeds.join(', ')}`)
    .default(100)
    .describe(`link speed in Gbit/s: ${speeds.join(', ')}`),
});

export default definePlugin({
  name: 'rdma',
  description: 'a ConnectX-7 RDMA adapter (15b3:1021) for mlx5_core and mlx5_ib',
  options,
  guest: {
    drivers: ['mlx5_core', 'mlx5_ib'],
    programs: [packageFile(import.meta.url, 'plugins/rdma/guest')],
    packages: ['ibverbs-providers', 'ibverbs-utils', 'rdma-core'],
    buildPackages: ['libibverbs-dev', 'librdmacm-dev'],
  },
  create: (given, context) => {
    if (given.pcap !== undefined && given.link === 'ib') {
      throw new Error('rdma: pcap records Ethernet frames; use link=roce');
    }
    const recorders = context.machineService('rdma-recorders', () => new Recorders());
    const recorder = given.pcap === undefined ? undefined : recorders.to(given.pcap);
    return Array.from({ length: given.functions }, (_, index) => {
      const number = context.instance * MAX_FUNCTIONS + index;
      const profile = {
        link: given.link,
        mac: given.mac === undefined ? macAddress(number) : Number.parseInt(given.mac.replaceAll(':', ''), 16) + index,
        guid: nodeGuid(number),
        lid: number + 1,
        mtu: given.mtu,
        speedGbps: given.speed as Speed,
        pages: PAGES,
      };
      return new RdmaFunction(context, profile, given.functions === 1 ? undefined : `p${index}`, recorder);
    });
  },
  commands,
  matrix,
  bench,
});
