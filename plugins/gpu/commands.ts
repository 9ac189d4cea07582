/** What `ghostbus ctl` can ask of a GPU: where memory lies, and faults on demand. */
import { z } from 'zod';

const address = z.coerce
  .number()
  .int()
  .min(0)
  .max(2 ** 48 - 1);

const vmid = z.coerce.number().int().min(0).max(15);

/** `true` and `false` as a command line writes them. */
const flag = z
  .union([z.boolean(), z.enum(['true', 'false'])])
  .transform((value) => value === true || value === 'true')
  .default(false);

const count = z.coerce
  .number()
  .int()
  .min(0)
  .max(2 ** 20);

/** Numbers may be written as text, `0x…` too. */
export const commandSchema = z.discriminatedUnion('command', [
  /** Where `bytes` from a GPU virtual `address` lie, per VMID. */
  z.strictObject({
    command: z.literal('translate'),
    address,
    bytes: z.coerce
      .number()
      .int()
      .min(1)
      .max(2 ** 30),
  }),
  /**
   * Page faults that no access caused, in `pages` pages behind one another. `retry`: as an engine reports it that waits
   * for the page.
   */
  z.strictObject({
    command: z.literal('page-fault'),
    hub: z.enum(['gfxhub', 'mmhub']),
    address,
    vmid,
    access: z.enum(['read', 'write']).default('read'),
    retry: flag,
    pages: count.default(1),
  }),
  /** A queue, by the name that `inspect` shows, executes nothing any more until it is set up anew. */
  z.strictObject({ command: z.literal('hang'), queue: z.string().min(1) }),
  /** Interrupts get lost: the next vectors before they reach a ring, the next messages on their way to the CPU. */
  z.strictObject({ command: z.literal('lose-interrupts'), vectors: count.default(0), messages: count.default(0) }),
  /** An uncorrectable error that an engine finds in what it works on for a VMID. */
  z.strictObject({ command: z.literal('ecc-error'), engine: z.enum(['sdma0', 'cp']), vmid }),
  /** The card is pulled out: see FunctionPort.vanish. */
  z.strictObject({ command: z.literal('remove') }),
]);

export type Command = z.output<typeof commandSchema>;

/** Throws an Error that names what is wrong. */
export function parseCommand(command: string, args: Readonly<Record<string, unknown>>): Command {
  const parsed = commandSchema.safeParse({ ...args, command });
  if (!parsed.success) throw new Error(`gpu: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}
