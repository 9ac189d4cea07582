/** One command as its handler sees it: input and output without mailboxes. */
import type { CommandName } from './opcodes.js';

/** Result of a command, first byte of its output. Source: include/linux/mlx5/device.h `MLX5_CMD_STAT_*`. */
export const STATUS = {
  OK: 0x0,
  INTERNAL_ERROR: 0x1,
  BAD_OPERATION: 0x2,
  BAD_PARAMETER: 0x3,
  BAD_SYSTEM_STATE: 0x4,
  BAD_RESOURCE: 0x5,
  RESOURCE_BUSY: 0x6,
  LIMIT_EXCEEDED: 0x8,
  BAD_RESOURCE_STATE: 0x9,
  BAD_INDEX: 0xa,
  NO_RESOURCES: 0xf,
  BAD_INPUT_LENGTH: 0x50,
  BAD_OUTPUT_LENGTH: 0x51,
  BAD_QP_STATE: 0x10,
  BAD_SIZE_OUTSTANDING_CQES: 0x40,
} as const;

/** A command that the adapter refuses; the text is for our log, the status for the driver. */
export class CommandError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = 'CommandError';
    this.status = status;
  }
}

/**
 * Views are padded with zeros to this, the size of QUERY_HCA_CAP's output: short inputs read as zero, not out of
 * bounds.
 */
const MINIMUM_VIEW_BYTES = 0x1010;
/** Object numbers sit at bit 0x48, 24 bits, in nearly every command (mlx5_ifc.h: cqn, qpn, pd, uar, …). */
const NUMBER_DWORD = 8;

export class CommandCall {
  readonly input: DataView;
  readonly inputBytes: number;
  readonly output: DataView;
  readonly outputBytes: number;

  /** `inputBytes` and `outputBytes`: what the driver said; the views may be longer. */
  constructor(input: Uint8Array, outputBytes: number) {
    const padded = new Uint8Array(Math.max(input.length, MINIMUM_VIEW_BYTES));
    padded.set(input);
    this.input = new DataView(padded.buffer);
    this.inputBytes = input.length;
    this.output = new DataView(new ArrayBuffer(Math.max(outputBytes, MINIMUM_VIEW_BYTES)));
    this.outputBytes = outputBytes;
  }

  get opcode(): number {
    return this.input.getUint16(0);
  }

  get opMod(): number {
    return this.input.getUint16(6);
  }

  /** The object this command names, where the command uses the usual place. */
  get number(): number {
    return this.input.getUint32(NUMBER_DWORD) & 0xffffff;
  }

  /** Answers with a new object's number. */
  answerNumber(number: number): void {
    this.output.setUint32(NUMBER_DWORD, number);
  }

  /** Bus addresses of an array of be64 at `start`. Throws {@link CommandError} when the input is shorter. */
  addresses(start: number, count: number): Float64Array {
    this.#requireInput(start + 8 * count);
    const addresses = new Float64Array(count);
    for (let index = 0; index < count; index++) {
      const high = this.input.getUint32(start + 8 * index);
      if (high >= 0x200000) {
        throw new CommandError(STATUS.BAD_PARAMETER, `page address ${index} is 0x${high.toString(16)}…, beyond 2^53`);
      }
      addresses[index] = high * 2 ** 32 + this.input.getUint32(start + 8 * index + 4);
    }
    return addresses;
  }

  /** Bytes of a variable part. Throws {@link CommandError} when the input is shorter. */
  bytes(start: number, lengthBytes: number): Uint8Array {
    this.#requireInput(start + lengthBytes);
    return new Uint8Array(this.input.buffer, start, lengthBytes);
  }

  #requireInput(lengthBytes: number): void {
    if (lengthBytes > this.inputBytes) {
      throw new CommandError(
        STATUS.BAD_INPUT_LENGTH,
        `the input has ${this.inputBytes} bytes, the command needs ${lengthBytes}`,
      );
    }
  }
}

export type CommandHandler = (call: CommandCall) => void;

/** What a block contributes to the command interface. */
export type CommandTable = Readonly<Partial<Record<CommandName, CommandHandler>>>;
