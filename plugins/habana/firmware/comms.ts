/**
 * COMMS, the protocol of the driver's dynamic firmware loader: commands in KMD_MSG_TO_CPU, answers in
 * CPU_CMD_STATUS_TO_HOST, and a descriptor in SRAM that says where the next image goes and which registers the driver
 * uses from then on.
 *
 * Source: include/linux/habanalabs/hl_boot_if.h (enum comms_cmd, enum comms_sts, struct lkd_fw_comms_desc);
 * common/firmware_if.c hl_fw_dynamic_send_protocol_cmd, hl_fw_dynamic_validate_descriptor.
 */
import { crc32 } from 'node:zlib';
import { BitFields32, ImageBuilder } from 'ghostbus/kit';
import { CFG } from '../interconnect/address-map.js';

/** enum comms_cmd, in the five upper bits of a command; the lower 25 are the size of the image that follows. */
export const COMMS_COMMAND = {
  noop: 0,
  clearStatus: 1,
  resetState: 2,
  prepareDescriptor: 3,
  dataReady: 4,
  execute: 5,
  resetDevice: 6,
  gotoWfe: 7,
  skipBmc: 8,
} as const;
const COMMAND = new BitFields32({ imageBytes: [0, 25], command: [27, 5] });

/** enum comms_sts, in the four upper bits of an answer; the lower 26 are an offset in SRAM, in dwords. */
export const COMMS_STATUS = { noop: 0, acknowledged: 1, ok: 2, error: 3, invalid: 4 } as const;
const ANSWER = new BitFields32({ sramOffset: [0, 26], status: [28, 4] });

/** What the protocol moves. */
interface CommsFirmware {
  /** CPU_CMD_STATUS_TO_HOST. */
  answer(value: number): void;
  /** Puts the descriptor into SRAM and returns its offset there. */
  describe(): number;
  /** False if what the driver put there is no image for this firmware. */
  accepts(): boolean;
  execute(): void;
  resetDevice(): void;
}

/**
 * Every command is acknowledged; what came of it is told only after the driver has cleared the acknowledgement and sent
 * NOOP, so that neither side misses an answer of the other.
 */
export class Comms {
  readonly #firmware: CommsFirmware;
  /** What the next NOOP brings about; returns the answer. */
  #pending: (() => number) | undefined;

  constructor(firmware: CommsFirmware) {
    this.#firmware = firmware;
  }

  /** KMD_MSG_TO_CPU was written. */
  command(word: number): void {
    const command = COMMAND.get(word, 'command');
    if (command === COMMS_COMMAND.clearStatus) this.#answer(COMMS_STATUS.noop);
    else if (command === COMMS_COMMAND.noop) this.#finish();
    else this.#start(command);
  }

  #start(command: number): void {
    const outcome = this.#outcomes[command];
    this.#pending = outcome;
    this.#answer(outcome === undefined ? COMMS_STATUS.error : COMMS_STATUS.acknowledged);
  }

  #finish(): void {
    const outcome = this.#pending;
    this.#pending = undefined;
    if (outcome !== undefined) this.#firmware.answer(outcome());
  }

  /** GOTO_WFE is refused: it is for cards that are not secured. */
  readonly #outcomes: Readonly<Record<number, () => number>> = {
    [COMMS_COMMAND.resetState]: () => status(COMMS_STATUS.ok),
    [COMMS_COMMAND.skipBmc]: () => status(COMMS_STATUS.ok),
    [COMMS_COMMAND.prepareDescriptor]: () => status(COMMS_STATUS.ok, this.#firmware.describe()),
    [COMMS_COMMAND.dataReady]: () => status(this.#firmware.accepts() ? COMMS_STATUS.ok : COMMS_STATUS.invalid),
    [COMMS_COMMAND.execute]: () => {
      this.#firmware.execute();
      return status(COMMS_STATUS.ok);
    },
    [COMMS_COMMAND.resetDevice]: () => {
      this.#firmware.resetDevice();
      return status(COMMS_STATUS.noop);
    },
  };

  #answer(value: number): void {
    this.#firmware.answer(status(value));
  }
}

function status(value: number, sramOffset = 0): number {
  return ANSWER.pack({ status: value, sramOffset: sramOffset / 4 });
}

/**
 * struct comms_msg_header of a message that the driver sends where an image would go: HL_COMMS_MSG_MAGIC, whose last
 * byte is a version.
 */
const MESSAGE = new BitFields32({ version: [0, 8], magic: [8, 24] });
const MESSAGE_MAGIC = 0x48434d;

/** True if what starts with this dword is a message (the cause of a reset, for example) and no image. */
export function isMessage(firstDword: number): boolean {
  return MESSAGE.get(firstDword, 'magic') === MESSAGE_MAGIC;
}

/** HL_COMMS_DESC_MAGIC, HL_COMMS_DESC_VER. */
const DESCRIPTOR_MAGIC = 0x4843444d;
const DESCRIPTOR_VERSION = 3;
/** sizeof(struct lkd_fw_comms_desc), struct comms_msg_header, and offsets in the former. */
const DESCRIPTOR_BYTES = 0x500;
const HEADER_BYTES = 16;
const DESCRIPTOR = {
  crc: 4,
  size: 8,
  version: 10,
  registers: 0x10,
  firmwareVersion: 0x178,
  imageAddress: 0x278,
} as const;
const VERSION_BYTES = 128;

const cpu = CFG.cpuInterface;
const { psoc } = CFG;
/** struct cpu_dyn_regs: cfg offsets; 0 where this card has no such register. */
const DYNAMIC_REGISTERS: readonly number[] = [
  ...[cpu + 0x204, cpu + 0x208, cpu + 0x20c, cpu + 0x230], // packet queue: base, length, state
  ...[cpu + 0x220, cpu + 0x224, cpu + 0x228, cpu + 0x22c], // event queue: base, length, consumer
  ...[cpu + 0x210, cpu + 0x214, cpu + 0x218, cpu + 0x200], // completion queue: base, length; producer of packets
  ...[psoc + 0x150, psoc + 0x154, psoc + 0x160, psoc + 0x164, psoc + 0x300], // boot: features, errors, status
  ...[0, 0, 0, 0], // firmware update, fuse version
  ...[psoc + 0x170, psoc + 0x174, psoc + 0x100], // version strings, HW_STATE
  ...[psoc + 0x304, psoc + 0x15c], // command and answer
  // Interrupts of the host and of the engines, which GIC_HOST_PI_UPD_IRQ_POLL_REG and following take (gaudi_reg_map.h).
  ...[psoc + 0x104, psoc + 0x108, psoc + 0x10c, psoc + 0x110, psoc + 0x114, psoc + 0x118, psoc + 0x11c, psoc + 0x120],
];

/** struct lkd_fw_comms_desc. `imageAddress` is a device address in SRAM or HBM. */
export function commsDescriptor(firmwareVersion: string, imageAddress: number): Uint8Array {
  const image = new ImageBuilder({ sizeBytes: DESCRIPTOR_BYTES });
  image.u32(DESCRIPTOR.registers, ...DYNAMIC_REGISTERS);
  image.text(DESCRIPTOR.firmwareVersion, firmwareVersion, VERSION_BYTES);
  image.u64(DESCRIPTOR.imageAddress, BigInt(imageAddress));
  image.u32(0, DESCRIPTOR_MAGIC).u32(DESCRIPTOR.crc, crc32(image.bytes.subarray(HEADER_BYTES)));
  image.u16(DESCRIPTOR.size, DESCRIPTOR_BYTES - HEADER_BYTES).u8(DESCRIPTOR.version, DESCRIPTOR_VERSION);
  return image.bytes;
}
