/** The state of a function, for people, programs and tests: what `ghostbus ctl … state` prints. */
import { z } from 'zod';

const count = z.number().nonnegative();

const transferCounters = z.strictObject({
  bytesRead: count,
  bytesWritten: count,
  registerWrites: count.describe("writes that landed in a peer's trapped page, such as doorbells"),
  registerReads: count,
});

const linkCounters = z.strictObject({ bytesRead: count, bytesWritten: count });

const functionCounters = z.strictObject({
  guestMemory: transferCounters,
  messages: transferCounters.describe('DMA by messages through QEMU'),
  peers: z.record(z.string(), transferCounters).describe('by name of the function that was reached'),
  links: z.record(z.string(), linkCounters).describe('over private links, by name of the other function'),
  interrupts: z.record(z.number(), count).describe('by vector'),
  failedRequests: count,
});

const commandStatistics = z
  .strictObject({
    count,
    errors: count,
    totalMs: count,
    longestMs: count,
    latencyNsLog2: z.array(count).readonly().describe('element i counts what took 2^i up to 2^(i+1) nanoseconds'),
  })
  .readonly();

const serverStatistics = z
  .strictObject({
    connected: z.boolean(),
    connections: count,
    commands: z.record(z.string(), commandStatistics).readonly().describe("by the protocol's name"),
    longestBatch: count,
    queuedBytes: count,
    dmaMapsWithoutFile: count,
    dmaMessages: z.strictObject({ reads: count, writes: count, failures: count }).readonly(),
    unexpectedReplies: count,
  })
  .readonly();

export const functionState = z
  .strictObject({
    name: z.string().describe('for example gpu0'),
    connected: z.boolean().describe('a client is there'),
    broken: z.string().exactOptional().describe('why the function was taken out of service'),
    counters: functionCounters,
    barAddresses: z.record(z.number(), z.number()).readonly().describe('bus addresses of the BARs that decode now'),
    server: serverStatistics,
    model: z.unknown().describe("what the device itself says (`inspect`); see the device's README"),
  })
  .readonly()
  .meta({ title: 'State of one function' });

export type FunctionState = z.infer<typeof functionState>;
