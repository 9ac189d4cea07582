/**
 * A function with nothing but registers that keep what is written. QEMU posts writes only to functions without memory
 * to map (vfio-user.md §2.4); of others it awaits the answer, and then no later doorbell can overtake them.
 */

import { definePlugin, pciExpress, RegisterBlock } from 'ghostbus';
import { z } from 'zod';

const PAGE_BYTES = 4096;
const REGISTERS = 16;

/** Ids as the example's (plugins/example/function.ts): a vendor that nobody owns, and no driver. */
const SCRATCH_ID = { vendorId: 0x1234, deviceId: 0x6764 } as const;

export default definePlugin({
  name: 'scratch',
  description: 'registers that keep what is written',
  options: z.strictObject({}),
  create: () => ({
    identity: { ...SCRATCH_ID, subsystemVendorId: 0x1234, subsystemId: 1, classCode: 0x088000, revisionId: 1 },
    bars: [{ index: 0, kind: 'memory32', sizeBytes: PAGE_BYTES }],
    capabilities: [pciExpress()],
    powerOn: ({ log }) => {
      const registers = new RegisterBlock(
        { name: 'scratch', sizeBytes: PAGE_BYTES, log },
        { SCRATCH: { offset: 0, count: REGISTERS } },
      );
      return { bars: { 0: [{ offset: 0, sizeBytes: PAGE_BYTES, registers }] } };
    },
  }),
});
