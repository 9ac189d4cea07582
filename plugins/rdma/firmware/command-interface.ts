/**
 * The command queue: 32 slots in a page of the driver's, inputs and outputs in chains of mailboxes. Works the same for
 * a driver that polls the ownership bit and for one that waits for the event.
 */
import { DmaError, type FunctionPort } from 'ghostbus';
import { reportDmaError } from '../memory/dma-report.js';
import { CommandCall, CommandError, type CommandHandler, type CommandTable, STATUS } from './command.js';
import { LOG_SLOTS } from './init-segment.js';
import { type CommandName, commandName, opcodes } from './opcodes.js';

/** include/linux/mlx5/device.h `struct mlx5_cmd_layout`. */
const SLOT = {
  BYTES: 64,
  INPUT_LENGTH: 4,
  INPUT_MAILBOX: 8,
  INPUT: 16,
  OUTPUT: 32,
  OUTPUT_MAILBOX: 48,
  OUTPUT_LENGTH: 56,
  TOKEN: 60,
  SIGNATURE: 61,
  STATUS_OWN: 63,
} as const;
const INLINE_BYTES = 16;

/** include/linux/mlx5/device.h `struct mlx5_cmd_prot_block`. */
const MAILBOX = { BYTES: 576, DATA_BYTES: 512, NEXT: 560, BLOCK_NUMBER: 568, TOKEN: 573 } as const;

/** `status_own` >> 1. Source: core/cmd.c `deliv_status_to_str`. */
const DELIVERY = {
  OK: 0x0,
  BAD_SIGNATURE: 0x1,
  BAD_TOKEN: 0x2,
  BAD_BLOCK_NUMBER: 0x3,
  BAD_OUTPUT_POINTER: 0x4,
  BAD_INPUT_POINTER: 0x5,
  BAD_INPUT_LENGTH: 0x7,
  BAD_OUTPUT_LENGTH: 0x8,
} as const;

/** The longest input is a page list of a million entries (a 4 GiB ring); nothing a driver sends comes near. */
const MAX_COMMAND_BYTES = 8 * 2 ** 20;

class DeliveryError extends Error {
  readonly delivery: number;

  constructor(delivery: number, message: string) {
    super(message);
    this.delivery = delivery;
  }
}

interface Slot {
  readonly index: number;
  readonly address: number;
  readonly view: DataView;
  readonly bytes: Uint8Array;
}

/** One command that ran, for tests and people. */
interface CommandRecord {
  readonly name: string;
  readonly status: number;
}

/**
 * How commands complete when the driver does not poll. `take` is called before a command runs, its result afterwards.
 */
type CompletionSource = () => (slots: number) => void;

const RECENT = 64;

export class CommandInterface {
  readonly #port: Pick<FunctionPort, 'dma' | 'log' | 'post'>;
  readonly #handlers = new Map<number, { name: CommandName; run: CommandHandler }>();
  readonly #completion: CompletionSource;
  readonly counts = new Map<string, number>();
  readonly recent: CommandRecord[] = [];
  /** A test's fault: commands of this name, or all of them with `*`, are never answered. */
  #swallow: { name: string; left: number } | undefined;
  #refuse: { name: string; status: number; left: number } | undefined;
  /** Commands that met a test's fault, by name. */
  readonly swallowed = new Map<string, number>();
  readonly refused = new Map<string, number>();
  /** How to answer those that were swallowed. */
  readonly #unanswered: (() => void)[] = [];

  constructor(
    port: Pick<FunctionPort, 'dma' | 'log' | 'post'>,
    tables: readonly CommandTable[],
    completion: CompletionSource,
  ) {
    this.#port = port;
    this.#completion = completion;
    for (const table of tables) {
      for (const [name, run] of Object.entries(table)) {
        this.#handlers.set(opcodes[name as CommandName], { name: name as CommandName, run });
      }
    }
  }

  /** Names of the commands that are carried out. */
  get names(): string[] {
    return [...this.#handlers.values()].map(({ name }) => name);
  }

  /** Every bit is a slot; each runs as a piece of work of its own, in slot order. */
  ring(slots: number, queueAddress: number): void {
    for (let index = 0; index < 1 << LOG_SLOTS; index++) {
      if ((slots >>> index) & 1) this.#port.post(() => this.#serve(index, queueAddress + index * SLOT.BYTES));
    }
  }

  /** The next `count` commands of that name (`*`: any) stay without an answer. */
  swallow(name: string, count: number): void {
    this.#swallow = { name, left: count };
  }

  /** The next `count` commands of that name (`*`: any) answer with `status`. */
  refuse(name: string, status: number, count: number): void {
    this.#refuse = { name, status, left: count };
  }

  /**
   * Answers what was swallowed, long after the driver gave up, with an error: nothing of it is carried out. Until then
   * the driver keeps its slot. Returns how many there were.
   */
  answerSwallowed(): number {
    const answers = this.#unanswered.splice(0);
    for (const answer of answers) answer();
    return answers.length;
  }

  #serve(index: number, address: number): void {
    const bytes = new Uint8Array(SLOT.BYTES);
    try {
      this.#port.dma.read(address, bytes);
      const slot: Slot = { index, address, bytes, view: new DataView(bytes.buffer) };
      if ((bytes[SLOT.STATUS_OWN]! & 1) === 0) return;
      this.#execute(slot);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      const what = 'a command was lost: its slot or mailboxes cannot be reached';
      reportDmaError(this.#port.log, what, { slot: index, address }, error);
    }
  }

  #execute(slot: Slot): void {
    // Before the command runs: one that creates the command queue's own event queue completes by polling only.
    const complete = this.#completion();
    let delivery: number = DELIVERY.OK;
    try {
      checkSignature(slot.bytes);
      const call = new CommandCall(this.#readInput(slot), this.#outputBytes(slot));
      if (!this.#run(call)) {
        this.#unanswered.push(() => this.#fail(slot, complete));
        return;
      }
      this.#writeOutput(slot, call);
    } catch (error) {
      if (!(error instanceof DeliveryError)) throw error;
      this.#port.log.warn('a command was not delivered', { slot: slot.index, reason: error.message });
      delivery = error.delivery;
    }
    this.#finish(slot, delivery);
    complete(2 ** slot.index);
  }

  /** The driver has given the mailboxes to other commands by now: only the slot itself is written. */
  #fail(slot: Slot, complete: (slots: number) => void): void {
    slot.bytes.fill(0, SLOT.OUTPUT, SLOT.OUTPUT + INLINE_BYTES);
    slot.bytes[SLOT.OUTPUT] = STATUS.INTERNAL_ERROR;
    this.#port.dma.write(slot.address + SLOT.OUTPUT, slot.bytes.subarray(SLOT.OUTPUT, SLOT.OUTPUT + INLINE_BYTES));
    this.#finish(slot, DELIVERY.OK);
    complete(2 ** slot.index);
  }

  /** Signs the slot; the ownership bit goes last. */
  #finish({ address, bytes }: Slot, delivery: number): void {
    bytes[SLOT.STATUS_OWN] = delivery << 1;
    bytes[SLOT.SIGNATURE] = 0;
    bytes[SLOT.SIGNATURE] = ~xor(bytes) & 0xff;
    this.#port.dma.writeU8(address + SLOT.SIGNATURE, bytes[SLOT.SIGNATURE]!);
    this.#port.dma.writeU8(address + SLOT.STATUS_OWN, bytes[SLOT.STATUS_OWN]!);
  }

  /** False when the command must stay unanswered. */
  #run(call: CommandCall): boolean {
    const name = commandName(call.opcode) ?? `0x${call.opcode.toString(16)}`;
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    if (this.#takes(this.#swallow, name, this.swallowed)) {
      this.#port.log.info('a command stays unanswered, as asked', { command: name });
      return false;
    }
    const status = this.#takes(this.#refuse, name, this.refused) ? this.#refuse!.status : this.#call(call, name);
    call.output.setUint8(0, status);
    if (status !== STATUS.OK) call.output.setUint32(4, call.opcode);
    this.recent.push({ name, status });
    if (this.recent.length > RECENT) this.recent.shift();
    return true;
  }

  #takes(fault: { name: string; left: number } | undefined, name: string, counts: Map<string, number>): boolean {
    if (fault === undefined || fault.left <= 0 || (fault.name !== '*' && fault.name !== name)) return false;
    fault.left--;
    counts.set(name, (counts.get(name) ?? 0) + 1);
    return true;
  }

  #call(call: CommandCall, name: string): number {
    const handler = this.#handlers.get(call.opcode);
    if (handler === undefined) {
      this.#port.log.warn('unimplemented command', { command: name, opMod: call.opMod });
      return STATUS.BAD_OPERATION;
    }
    try {
      handler.run(call);
      return STATUS.OK;
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      this.#port.log.info('command refused', { command: name, status: error.status, reason: error.message });
      return error.status;
    }
  }

  #readInput(slot: Slot): Uint8Array {
    const length = slot.view.getUint32(SLOT.INPUT_LENGTH);
    if (length < 8 || length > MAX_COMMAND_BYTES) {
      throw new DeliveryError(DELIVERY.BAD_INPUT_LENGTH, `an input of ${length} bytes`);
    }
    const input = new Uint8Array(length);
    input.set(slot.bytes.subarray(SLOT.INPUT, SLOT.INPUT + Math.min(length, INLINE_BYTES)));
    const pointer = busAddress(slot.view, SLOT.INPUT_MAILBOX);
    this.#forEachMailbox(slot, pointer, length, DELIVERY.BAD_INPUT_POINTER, (address, done, size) => {
      this.#port.dma.read(address, input.subarray(done, done + size));
    });
    return input;
  }

  #outputBytes(slot: Slot): number {
    const length = slot.view.getUint32(SLOT.OUTPUT_LENGTH);
    if (length < 8 || length > MAX_COMMAND_BYTES) {
      throw new DeliveryError(DELIVERY.BAD_OUTPUT_LENGTH, `an output of ${length} bytes`);
    }
    return length;
  }

  #writeOutput(slot: Slot, call: CommandCall): void {
    const output = new Uint8Array(call.output.buffer, 0, call.outputBytes);
    const pointer = busAddress(slot.view, SLOT.OUTPUT_MAILBOX);
    this.#forEachMailbox(slot, pointer, output.length, DELIVERY.BAD_OUTPUT_POINTER, (address, done, size) => {
      this.#port.dma.write(address, output.subarray(done, done + size));
    });
    slot.bytes.fill(0, SLOT.OUTPUT, SLOT.OUTPUT + INLINE_BYTES).set(output.subarray(0, INLINE_BYTES), SLOT.OUTPUT);
    this.#port.dma.write(slot.address + SLOT.OUTPUT, slot.bytes.subarray(SLOT.OUTPUT, SLOT.OUTPUT + INLINE_BYTES));
  }

  /** Walks a chain as far as `length` reaches: chains come from pools and may be longer. Each block is checked. */
  #forEachMailbox(
    slot: Slot,
    first: number | undefined,
    length: number,
    badPointer: number,
    visit: (address: number, done: number, size: number) => void,
  ): void {
    let address = first;
    const token = slot.bytes[SLOT.TOKEN]!;
    for (let done = INLINE_BYTES, block = 0; done < length; done += MAILBOX.DATA_BYTES, block++) {
      if (address === undefined || address === 0 || address % 64 !== 0) {
        throw new DeliveryError(badPointer, `mailbox ${block} has no usable address`);
      }
      const trailer = new Uint8Array(MAILBOX.BYTES - MAILBOX.NEXT);
      this.#port.dma.read(address + MAILBOX.NEXT, trailer);
      const view = new DataView(trailer.buffer);
      if (trailer[MAILBOX.TOKEN - MAILBOX.NEXT] !== token) {
        throw new DeliveryError(DELIVERY.BAD_TOKEN, `mailbox ${block} has another token than its slot`);
      }
      if (view.getUint32(MAILBOX.BLOCK_NUMBER - MAILBOX.NEXT) !== block) {
        throw new DeliveryError(DELIVERY.BAD_BLOCK_NUMBER, `mailbox ${block} has another number`);
      }
      visit(address, done, Math.min(MAILBOX.DATA_BYTES, length - done));
      address = busAddress(view, 0);
    }
  }
}

/** A be64 bus address; undefined beyond 2^53. */
function busAddress(view: DataView, offset: number): number | undefined {
  const high = view.getUint32(offset);
  return high >= 0x200000 ? undefined : high * 2 ** 32 + view.getUint32(offset + 4);
}

/** All bytes of a slot, its signature among them, make 0xff (core/cmd.c `set_signature`). */
function checkSignature(slot: Uint8Array): void {
  if (xor(slot) !== 0xff) throw new DeliveryError(DELIVERY.BAD_SIGNATURE, 'the signature of the slot is wrong');
}

function xor(bytes: Uint8Array): number {
  return bytes.reduce((sum, byte) => sum ^ byte, 0);
}
