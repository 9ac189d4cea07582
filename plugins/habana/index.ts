/** A first-generation Gaudi accelerator for the stock driver habanalabs. Start with README.md beside this file. */

import { byteSize, definePlugin, packageFile } from 'ghostbus';
import { z } from 'zod';
import { bench } from './bench.js';
import { commands } from './commands.js';
import { BOOT_FAILURES } from './firmware/boot-failure.js';
import { firmwareStubs } from './firmware/files.js';
import { HabanaFunction } from './function.js';
import { workaroundConfiguration, workaroundModules } from './guest/open-defect.js';
import { HBM_BYTES } from './interconnect/address-map.js';
import { matrix } from './matrix/index.js';

export default definePlugin({
  name: 'habana',
  description: 'a Gaudi accelerator (1da3:1000) with DMA engines, queues, MMU and sync managers; it computes nothing',
  options: z.strictObject({
    // Below 512 MiB the driver's page tables, which end at 0x1C000000, do not fit (L/gaudi/gaudiP.h).
    hbm: byteSize({ minBytes: 2 ** 29, maxBytes: HBM_BYTES, powerOfTwo: true })
      .prefault('32G')
      .describe('HBM behind BAR4; costs nothing until touched'),
    cardName: z
      .string()
      .regex(/^[A-Za-z0-9_]{1,15}$/, 'use letters, digits and underscores, 15 at most')
      .default('HL205')
      .describe('name of the card, as hwmon and the driver show it'),
    cardLocation: z.coerce.number().int().min(0).max(7).default(0).describe('slot of the card in its server'),
    temperature: z.coerce.number().int().min(0).max(150).default(40).describe('what the sensors say, degrees Celsius'),
    power: z.coerce.number().int().min(0).max(1000).default(60).describe('what the power sensor says, watts'),
    profile: z
      .enum(['open', 'secured'])
      .default('open')
      .describe('secured: 1da3:1010, whose firmware sets up and resets the card, and loads by the COMMS protocol'),
    failBoot: z
      .enum(['none', ...BOOT_FAILURES])
      .default('none')
      .describe('stage at which the firmware fails to boot'),
  }),
  guest: {
    drivers: ['habanalabs'],
    files: () => [...firmwareStubs(), workaroundConfiguration()],
    programs: [packageFile(import.meta.url, 'plugins/habana/guest')],
    modules: workaroundModules,
  },
  create: (options, context) => new HabanaFunction(context, options),
  commands,
  matrix,
  bench,
});
