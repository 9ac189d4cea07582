/** What `ghostbus serve --format json` prints. */
import { z } from 'zod';

const identity = z
  .strictObject({
    vendorId: z.int(),
    deviceId: z.int(),
    subsystemVendorId: z.int(),
    subsystemId: z.int(),
    classCode: z.int(),
    revisionId: z.int(),
  })
  .readonly();

const servedFunction = z
  .strictObject({ name: z.string(), plugin: z.string(), identity, socketPath: z.string() })
  .readonly();

export const serveFacts = z
  .strictObject({
    machine: z.literal('q35'),
    sharedMemoryArgs: z.array(z.string()).readonly().describe('arguments that make guest memory a shared memfd'),
    devices: z
      .array(z.looseObject({ driver: z.string(), id: z.string(), bus: z.string().exactOptional() }).readonly())
      .readonly()
      .describe('one -device each, as the JSON syntax of QEMU takes it, in the order that it needs'),
    kernelArgs: z.array(z.string()).readonly().describe("for the guest kernel's command line"),
    functions: z.array(servedFunction).readonly(),
    controlSocketPath: z.string().describe('what ghostbus ctl talks to'),
    guestFilePaths: z.array(z.string()).readonly().describe('files that the guest needs; --write-guest-files has them'),
  })
  .readonly()
  .meta({ title: 'ghostbus serve --format json' });

export type ServeFacts = z.infer<typeof serveFacts>;
