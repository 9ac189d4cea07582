/** Version negotiation: the JSON inside VERSION (vfio-user.md §1.5). Pure. */
import { z } from 'zod';
import { COMMAND, FLAG, MalformedMessage, VERSION } from './messages.js';

/** The only major version there is; the minor is ours, clients with a larger one must accept the smaller. */
const VERSION_MAJOR = 0;
const VERSION_MINOR = 0;

/** libvfio-user tran.c accepts this many descriptors per message from a client's announcement. */
const MAX_ANNOUNCED_FDS = 1024;
const PAGE_BYTES = 4096;

const pageMultiple = z.int().positive().multipleOf(PAGE_BYTES);

/** What a client may announce. Unknown keys are for newer versions and pass. */
const announcement = z.looseObject({
  capabilities: z
    .looseObject({
      max_msg_fds: z.int().min(0).max(MAX_ANNOUNCED_FDS).default(1),
      max_data_xfer_size: z
        .int()
        .positive()
        .default(1024 * 1024),
      max_dma_maps: z.int().positive().default(65535),
      pgsizes: pageMultiple.default(PAGE_BYTES),
      migration: z.looseObject({ pgsize: pageMultiple.optional() }).optional(),
      twin_socket: z.looseObject({ supported: z.boolean().optional(), fd_index: z.int().optional() }).optional(),
      write_multiple: z.boolean().optional(),
    })
    .prefault({}),
});

export interface ClientVersion {
  readonly minor: number;
  readonly maxMessageFds: number;
  /** Largest payload of one DMA_READ or DMA_WRITE. */
  readonly maxDataTransferBytes: number;
}

/** @throws MalformedMessage */
export function decodeVersion(message: Buffer): ClientVersion {
  const { major, minor } = VERSION.decode(message);
  if (major !== VERSION_MAJOR) throw new MalformedMessage(`major version ${major}; this server speaks 0 only`);
  const { capabilities } = parseAnnouncement(message.subarray(VERSION.sizeBytes));
  return {
    minor,
    maxMessageFds: capabilities.max_msg_fds,
    maxDataTransferBytes: capabilities.max_data_xfer_size,
  };
}

function parseAnnouncement(json: Buffer): z.infer<typeof announcement> {
  if (json.length === 0) return announcement.parse({});
  if (json.at(-1) !== 0) throw new MalformedMessage('the capabilities do not end with NUL');
  let value: unknown;
  try {
    value = JSON.parse(json.subarray(0, -1).toString('utf8'));
  } catch (error) {
    throw new MalformedMessage(`the capabilities are no JSON: ${(error as Error).message}`);
  }
  const result = announcement.safeParse(value);
  if (!result.success) throw new MalformedMessage(`capabilities: ${z.prettifyError(result.error)}`);
  return result.data;
}

export interface ServerLimits {
  /** Descriptors in one message to us; QEMU accepts an announcement of at most 16. */
  readonly maxMessageFds: number;
  /** Payload of one region access; QEMU accepts at most 64 MiB. */
  readonly maxDataTransferBytes: number;
  /** Announced to the client, which does not hold itself to it; the device refuses what is too many. */
  readonly maxDmaMaps: number;
}

/**
 * The reply: with usual limits 121 bytes. QEMU reserved 214 bytes for it, its request's size. `write_multiple` stays
 * out: it makes QEMU 10.2 take a slower path for every message (vfio-user.md §2.2).
 */
export function encodeVersionReply(id: number, limits: ServerLimits): Buffer {
  const capabilities = {
    max_msg_fds: limits.maxMessageFds,
    max_data_xfer_size: limits.maxDataTransferBytes,
    max_dma_maps: limits.maxDmaMaps,
    pgsizes: PAGE_BYTES,
  };
  const data = Buffer.from(`${JSON.stringify({ capabilities })}\0`);
  const version = { major: VERSION_MAJOR, minor: VERSION_MINOR };
  return VERSION.encode(id, COMMAND.VERSION, version, { flags: FLAG.REPLY, data });
}
