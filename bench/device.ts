/**
 * The function that the emulator's own costs are measured with: registers in BAR0, the first of them at its beginning,
 * and memory behind BAR2.
 */

import { z } from 'zod';
import {
  type CreateContext,
  definePlugin,
  type Log,
  type PcieFunction,
  pciExpress,
  RegisterBlock,
} from '../emulator/plugin/index.js';

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const REGISTERS_BYTES = 4 * KIB;
/** More than bar-bandwidth goes through. */
const MEMORY_BYTES = 16 * MIB;

export const MEMORY_BAR = 2;

/** An array of registers in BAR0, from `offset` on. */
export const VALUES = { offset: 0x100, count: 64 } as const;

function createRegisters(log: Log): RegisterBlock {
  return new RegisterBlock(
    { name: 'registers', sizeBytes: REGISTERS_BYTES, log },
    {
      ID: { offset: 0, reset: 1, writable: 0 },
      VALUE: { offset: VALUES.offset, count: VALUES.count, reset: 1 },
    },
  );
}

function createFunction(context: CreateContext): PcieFunction {
  const memory = context.createMemory('memory', MEMORY_BYTES);
  return {
    // No driver of the kernel matches it: see the example's identity, which shares the vendor.
    identity: {
      vendorId: 0x1234,
      deviceId: 0x6262,
      subsystemVendorId: 0x1234,
      subsystemId: 1,
      classCode: 0x088000,
      revisionId: 1,
    },
    bars: [
      { index: 0, kind: 'memory32', sizeBytes: REGISTERS_BYTES },
      { index: MEMORY_BAR, kind: 'memory64', prefetchable: true, sizeBytes: MEMORY_BYTES },
    ],
    capabilities: [pciExpress()],
    powerOn: (port) => ({
      bars: {
        0: [{ offset: 0, sizeBytes: REGISTERS_BYTES, registers: createRegisters(port.log) }],
        [MEMORY_BAR]: [{ offset: 0, sizeBytes: MEMORY_BYTES, memory }],
      },
    }),
  };
}

export default definePlugin({
  name: 'bench',
  description: 'registers and memory, to be measured',
  options: z.strictObject({}),
  create: (_, context) => createFunction(context),
});
