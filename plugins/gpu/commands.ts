/** What `ghostbus ctl` can ask of a GPU: where memory lies, and faults on demand. */
import { type Commands, command } from 'ghostbus';
import { z } from 'zod';
import type { GpuModel } from './model.js';

const ADDRESS_LIMIT = 2 ** 48;
const MAX_BYTES = 2 ** 30;
const MAX_COUNT = 2 ** 20;
const MAX_VMID = 15;

const address = z
  .int()
  .min(0)
  .max(ADDRESS_LIMIT - 1)
  .describe('GPU virtual address');
const vmid = z.int().min(0).max(MAX_VMID).describe('address space, 0 to 15');
const count = z.int().min(0).max(MAX_COUNT);

/** What each does in detail, and what the driver does then: README, "Commands and faults on demand". */
export const commands: Commands<GpuModel> = {
  translate: command({
    description: 'tells, for every VMID that has the range mapped, where it lies: in VRAM, or at which bus addresses',
    arguments: z.strictObject({ address, bytes: z.int().min(1).max(MAX_BYTES).describe('length of the range') }),
    run: (gpu: GpuModel, { address, bytes }) => gpu.translate(address, bytes),
  }),
  'page-fault': command({
    description: 'page faults that no access caused, in pages behind one another',
    arguments: z.strictObject({
      hub: z.enum(['gfxhub', 'mmhub']).describe('translation hub that reports them'),
      address,
      vmid,
      access: z.enum(['read', 'write']).default('read').describe('what the access would have done'),
      retry: z.boolean().default(false).describe('as an engine reports it that waits for the page'),
      pages: count.default(1).describe('how many'),
    }),
    run: (gpu: GpuModel, { hub, ...fault }) => ({ reported: gpu.injectFault(hub, fault) }),
  }),
  hang: command({
    description: 'a queue executes nothing any more until it is set up anew',
    arguments: z.strictObject({ queue: z.string().min(1).describe('its name as the state shows it: sdma0 gfx') }),
    run: (gpu: GpuModel, { queue }) => gpu.hang(queue),
  }),
  'lose-interrupts': command({
    description: 'interrupts get lost: vectors before they reach a ring, messages on their way to the CPU',
    arguments: z.strictObject({
      vectors: count.default(0).describe('of the next vectors'),
      messages: count.default(0).describe('of the next messages'),
    }),
    run: (gpu: GpuModel, lost) => gpu.loseInterrupts(lost),
  }),
  'ecc-error': command({
    description: 'an uncorrectable error that an engine finds; answers whether it was reported',
    arguments: z.strictObject({ engine: z.enum(['sdma0', 'cp']).describe('who finds it'), vmid }),
    run: (gpu: GpuModel, { engine, vmid }) => ({ reported: gpu.eccError(engine, vmid) }),
  }),
  remove: command({
    description: 'the card is pulled out; only a reset of the machine brings it back',
    run: (gpu: GpuModel) => gpu.remove(),
  }),
};
