/**
 * The packets of the management processor (CPU-CP): what it answers to each opcode. Packet layout and opcodes:
 * include/linux/habanalabs/cpucp_if.h struct cpucp_packet, enum cpucp_packet_id.
 */
import { BitFields32, ImageBuilder } from 'ghostbus/kit';
import { pllOutputsMhz } from '../blocks/pll.js';
import { FIRMWARE_VERSION } from '../blocks/psoc.js';
import type { Card } from '../card.js';
import type { SensorKind } from './sensors.js';

export const CPUCP_OPCODE = {
  disablePciAccess: 1,
  enablePciAccess: 2,
  temperatureGet: 3,
  voltageGet: 4,
  currentGet: 5,
  frequencySet: 9,
  frequencyGet: 10,
  ledSet: 11,
  i2cWrite: 12,
  i2cRead: 13,
  infoGet: 14,
  unmaskEvent: 16,
  unmaskEventArray: 17,
  test: 18,
  frequencyCurrentGet: 19,
  maxPowerGet: 20,
  maxPowerSet: 21,
  eepromGet: 22,
  pcieThroughputGet: 27,
  pcieReplayCountGet: 28,
  totalEnergyGet: 29,
  pllInfoGet: 30,
  powerGet: 32,
  powerSet: 45,
  replacedRowsGet: 43,
  pendingRowsStatus: 44,
  monitorDumpGet: 52,
} as const;

/** enum cpucp_packet_rc. */
export const CPUCP_RESULT = { success: 0, invalid: 1, fault: 2, invalidParameters: 4 } as const;

/** sizeof(struct cpucp_info). */
const INFO_BYTES = 0x6e8;
const MAX_SENSORS = 128;
/** Offsets in struct cpucp_info. */
const INFO = {
  kernelVersion: 0x400,
  cardType: 0x484,
  cardLocation: 0x488,
  cpldVersion: 0x48c,
  infineonVersion: 0x490,
  fuseVersion: 0x494,
  thermalVersion: 0x514,
  cpucpVersion: 0x594,
  dramSize: 0x618,
  cardName: 0x620,
  pllMap: 0x650,
  osVersion: 0x668,
} as const;
/** Revisions of the board's own controllers; made up. */
const CPLD_VERSION = 0xf;
const INFINEON_VERSION = 0x0b;
const EEPROM_BYTES = 256;
/** cpucp_card_type_pmc: the mezzanine card. */
const CARD_TYPE_PMC = 1;
const VERSION_BYTES = 128;
const CARD_NAME_BYTES = 16;
/** sizeof(struct cpucp_hbm_row_replaced_rows_info). */
const REPLACED_ROWS_BYTES = 8 + 32 * 8;
/** The packet's index word when a sensor is meant. */
const SENSOR_INDEX = new BitFields32({ channel: [0, 16], attribute: [16, 16] });
/** CPUCP_POWER_INPUT. */
const CARD_POWER = 8;
/** Clock of the compute engines after reset, Hz (GAUDI_MAX_CLK_FREQ). */
const DEFAULT_FREQUENCY_HZ = 2_200_000_000;

interface CpucpPacket {
  readonly opcode: number;
  readonly value: bigint;
  /** The word at offset 16: sensor index and type, PLL, or the size of the driver's buffer. */
  readonly index: number;
  /** Whatever follows the 24 bytes of the packet itself. */
  readonly extra: Uint8Array;
}

export interface CpucpReply {
  readonly result: bigint;
  readonly code: number;
  /** Bytes for the buffer whose address the packet's value is. */
  readonly buffer?: Uint8Array;
}

interface CpucpEvents {
  /** The driver has dealt with these events; they may be reported again. */
  unmask(types: readonly number[]): void;
  /** Contents of the monitors of all four sync managers. */
  monitorDump(): Uint8Array;
}

type Handler = (packet: CpucpPacket) => CpucpReply;

export class Cpucp {
  readonly #card: Card;
  readonly #events: CpucpEvents;
  readonly #frequencies = new Map<number, bigint>();
  #maxPowerMilliwatts = 0n;
  /** The card's three lamps, as the driver's debugfs sets them. */
  readonly leds = [false, false, false];
  /** False: the processor has died and answers nothing (`control('heartbeat')`). */
  isAlive = true;
  /**
   * `tests`: how often the driver asked whether anybody is there; once when it sets up the queue, then as its
   * heartbeat.
   */
  readonly counters: Record<'tests', number>;
  readonly #handlers: ReadonlyMap<number, Handler>;

  constructor(card: Card, events: CpucpEvents) {
    this.#card = card;
    this.#events = events;
    this.counters = card.statistics.of('CPU-CP', 'tests');
    this.#handlers = this.#table();
  }

  /** Undefined: no answer at all. */
  answer(packet: CpucpPacket): CpucpReply | undefined {
    if (!this.isAlive) return undefined;
    const handler = this.#handlers.get(packet.opcode);
    if (handler !== undefined) return handler(packet);
    this.#card.log.warn('the driver sent a CPU-CP packet that is not implemented; it is acknowledged', {
      opcode: packet.opcode,
    });
    return success(0n);
  }

  #table(): ReadonlyMap<number, Handler> {
    const op = CPUCP_OPCODE;
    return new Map<number, Handler>([
      [op.disablePciAccess, () => success(0n)],
      [op.enablePciAccess, () => success(0n)],
      [op.test, ({ value }) => this.#test(value)],
      [op.temperatureGet, (packet) => this.#sensor('temperature', packet)],
      [op.voltageGet, (packet) => this.#sensor('voltage', packet)],
      [op.currentGet, (packet) => this.#sensor('current', packet)],
      [op.powerGet, (packet) => this.#power(packet)],
      [op.powerSet, () => success(0n)],
      [op.frequencySet, ({ index, value }) => this.#setFrequency(index, value)],
      [op.frequencyGet, ({ index }) => success(this.#frequency(index))],
      [op.frequencyCurrentGet, ({ index }) => success(this.#frequency(index))],
      [op.maxPowerGet, () => success(this.#maxPowerMilliwatts)],
      [op.maxPowerSet, ({ value }) => this.#setMaxPower(value)],
      [op.ledSet, ({ index, value }) => this.#setLed(index, value)],
      // Nothing answers on the buses of this card.
      [op.i2cWrite, () => failure(CPUCP_RESULT.fault)],
      [op.i2cRead, () => failure(CPUCP_RESULT.fault)],
      [op.infoGet, ({ index }) => withBuffer(this.#info(), index)],
      [op.eepromGet, ({ index }) => withBuffer(this.#eeprom(), index)],
      [op.unmaskEvent, ({ value }) => this.#unmask([Number(value & 0xffffn)])],
      [op.unmaskEventArray, ({ extra }) => this.#unmask(arrayOf(extra))],
      [op.pllInfoGet, ({ index }) => pllInfo(index & 0xffff)],
      [op.pcieThroughputGet, () => success(0n)],
      [op.pcieReplayCountGet, () => success(0n)],
      [op.totalEnergyGet, () => success(BigInt(Math.round(this.#card.sensors.energyMillijoules())))],
      [op.replacedRowsGet, ({ index }) => withBuffer(new Uint8Array(REPLACED_ROWS_BYTES), index)],
      [op.pendingRowsStatus, () => success(0n)],
      [op.monitorDumpGet, ({ index }) => withBuffer(this.#events.monitorDump(), index)],
    ]);
  }

  #test(value: bigint): CpucpReply {
    this.counters.tests++;
    return success(value);
  }

  #sensor(kind: SensorKind, { index }: CpucpPacket): CpucpReply {
    const { channel, attribute } = SENSOR_INDEX.unpack(index);
    const value = this.#card.sensors.read(kind, channel, attribute);
    return value === undefined ? failure(CPUCP_RESULT.invalidParameters) : success(BigInt(value));
  }

  /**
   * hwmon asks for microwatts of a sensor; hl_fw_cpucp_power_get for the card's milliwatts (compare
   * DC_POWER_DEFAULT_PMC).
   */
  #power(packet: CpucpPacket): CpucpReply {
    if (SENSOR_INDEX.get(packet.index, 'attribute') !== CARD_POWER) return this.#sensor('power', packet);
    const microwatts = this.#card.sensors.list.find(({ kind }) => kind === 'power')?.values.input ?? 0;
    return success(BigInt(Math.round(microwatts / 1000)));
  }

  #frequency(pll: number): bigint {
    const chosen = this.#frequencies.get(pll);
    if (chosen !== undefined) return chosen;
    const [first] = pllOutputsMhz(pll) ?? [DEFAULT_FREQUENCY_HZ / 1e6];
    return BigInt(first) * 1_000_000n;
  }

  #setFrequency(pll: number, hertz: bigint): CpucpReply {
    if (pllOutputsMhz(pll) === undefined) return failure(CPUCP_RESULT.invalidParameters);
    this.#frequencies.set(pll, hertz);
    return success(0n);
  }

  #setLed(index: number, value: bigint): CpucpReply {
    if (index >= this.leds.length) return failure(CPUCP_RESULT.invalidParameters);
    this.leds[index] = value !== 0n;
    return success(0n);
  }

  #setMaxPower(milliwatts: bigint): CpucpReply {
    this.#maxPowerMilliwatts = milliwatts;
    return success(0n);
  }

  #unmask(types: readonly number[]): CpucpReply {
    this.#events.unmask(types);
    return success(0n);
  }

  #info(): Uint8Array {
    const { label, memories, sensors } = this.#card;
    const image = new ImageBuilder({ sizeBytes: INFO_BYTES });
    for (const [index, { type, flags }] of sensors.describe().slice(0, MAX_SENSORS).entries()) {
      image.u32(8 * index, type, flags);
    }
    return image
      .text(INFO.kernelVersion, `Linux version 5.10.18-${FIRMWARE_VERSION} (ghostbus)`, VERSION_BYTES)
      .u32(INFO.cardType, CARD_TYPE_PMC)
      .u32(INFO.cardLocation, label.cardLocation)
      .u32(INFO.cpldVersion, CPLD_VERSION)
      .u32(INFO.infineonVersion, INFINEON_VERSION)
      .text(INFO.fuseVersion, '00P0-HL2000A0-00-P00X00-00-00-00', VERSION_BYTES)
      .text(INFO.thermalVersion, FIRMWARE_VERSION, VERSION_BYTES)
      .text(INFO.cpucpVersion, FIRMWARE_VERSION, VERSION_BYTES)
      .u64(INFO.dramSize, BigInt(memories.hbm.sizeBytes))
      .text(INFO.cardName, label.cardName, CARD_NAME_BYTES)
      .text(INFO.osVersion, 'ghostbus', VERSION_BYTES).bytes;
  }

  /** Its layout is nobody's but the vendor's; what is here says so. */
  #eeprom(): Uint8Array {
    const text = `ghostbus emulated card, serial number ${this.#card.label.serialNumber}`;
    return new ImageBuilder({ sizeBytes: EEPROM_BYTES }).text(0, text, EEPROM_BYTES).bytes;
  }
}

function success(result: bigint): CpucpReply {
  return { result, code: CPUCP_RESULT.success };
}

function failure(code: number): CpucpReply {
  return { result: 0n, code };
}

/** The driver says how much room it has; the result is how much was written. */
function withBuffer(buffer: Uint8Array, roomBytes: number): CpucpReply {
  const bytes = buffer.subarray(0, roomBytes >>> 0);
  return { ...success(BigInt(bytes.length)), buffer: bytes };
}

function pllInfo(index: number): CpucpReply {
  const outputs = pllOutputsMhz(index);
  if (outputs === undefined) return failure(CPUCP_RESULT.invalidParameters);
  return success(outputs.reduce((result, mhz, position) => result | (BigInt(mhz) << BigInt(16 * position)), 0n));
}

/** struct cpucp_unmask_irq_arr_packet: length, then that many numbers. */
function arrayOf(extra: Uint8Array): number[] {
  if (extra.length < 4) return [];
  const view = new DataView(extra.buffer, extra.byteOffset, extra.length);
  const count = Math.min(view.getUint32(0, true), (extra.length - 4) >> 2);
  return Array.from({ length: count }, (_, index) => view.getUint32(4 + 4 * index, true));
}
