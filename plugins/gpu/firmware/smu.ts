import type { FunctionPort, RegisterBlock } from 'ghostbus';
import type { FloodGuard } from 'ghostbus/kit';
import { ImageBuilder } from 'ghostbus/kit';
import type { Mmio } from '../bus/mmio.js';
import { address48, hex } from '../bus/registers.js';
import { HUB_CLIENT, type Hub } from '../memory/hub.js';

/** Messages of the mailbox (inc/pmfw_if/smu_v13_0_5_ppsmc.h PPSMC_MSG_*). */
const MESSAGE = {
  TEST: 1,
  GET_SMU_VERSION: 2,
  POWER_DOWN_VCN: 5,
  POWER_UP_VCN: 6,
  GFX_DEVICE_DRIVER_RESET: 10,
  SET_DRIVER_DRAM_ADDR_HIGH: 11,
  SET_DRIVER_DRAM_ADDR_LOW: 12,
  TRANSFER_TABLE_SMU_TO_DRAM: 13,
  TRANSFER_TABLE_DRAM_TO_SMU: 14,
  GET_GFXCLK_FREQUENCY: 15,
  GET_ENABLED_SMU_FEATURES: 16,
  POWER_DOWN_JPEG: 18,
  POWER_UP_JPEG: 19,
  ALLOW_GFX_OFF: 22,
  DISALLOW_GFX_OFF: 23,
  GET_DRIVER_IF_VERSION: 25,
  PREPARE_FOR_UNLOAD: 26,
} as const;

/** Kinds of messages that are counted; a guest could invent 2^32. */
const MAX_COUNTED = 64;

const RESPONSE = { BUSY: 0, OK: 1, UNKNOWN_COMMAND: 0xfe, BAD_PREREQUISITE: 0xfd } as const;

/** Frequencies are constant: those that the VBIOS says the card boots with (vbios.ts, firmwareinfo), in MHz. */
const CLOCK_MHZ = { GFX: 1000, MEMORY: 1600, SOC: 1000 } as const;

/** SMU13_0_5_DRIVER_IF_VERSION, and a version of our own firmware. */
const DRIVER_IF_VERSION = 5;
const FIRMWARE_VERSION = 0x0001_0000;

/** Tables by their id in the upper layers (smu13_driver_if_v13_0_5.h TABLE_*). */
const TABLES: Readonly<Record<number, () => Uint8Array>> = { 4: dpmClocks, 7: metrics };

/** DpmClocks_t: one level of everything that there is. */
function dpmClocks(): Uint8Array {
  const image = new ImageBuilder({ sizeBytes: 176 });
  // SocClocks[0]; DfPstateTable[0] = fabric and memory clock; level counts: SOC, DF; smallest and largest GFX clock.
  image.u32(48, CLOCK_MHZ.SOC).u32(112, CLOCK_MHZ.MEMORY, CLOCK_MHZ.MEMORY);
  image.u8(162, 1).u8(164, 1).u32(168, CLOCK_MHZ.GFX, CLOCK_MHZ.GFX);
  return image.bytes;
}

/** SmuMetrics_t: clocks. No sensor exists: temperatures, voltages, currents, power and activity read zero. */
function metrics(): Uint8Array {
  return new ImageBuilder({ sizeBytes: 36 }).u16(0, CLOCK_MHZ.GFX, CLOCK_MHZ.SOC).u16(8, CLOCK_MHZ.MEMORY).bytes;
}

interface SmuParts {
  readonly port: Pick<FunctionPort, 'post'>;
  readonly log: FloodGuard;
  readonly mmio: Mmio;
  readonly hub: Hub;
  /** The driver asks for a reset of the engines (mode 2). */
  readonly modeReset: () => void;
}

/**
 * System management unit (MP1 13.0.5, driven by smu_v13_0.c and smu_v13_0_5_ppt.c): a mailbox. It says truly that no
 * power feature is enabled and that clocks never change. It is there because amdgpu's reset asks the SMU first whether
 * it can do it (amdgpu_dpm_is_mode1_reset_supported), and 6.12 follows a NULL pointer when an ASIC of this age has
 * none.
 */
export class Smu {
  readonly #log: FloodGuard;
  readonly #hub: Hub;
  readonly #modeReset: () => void;
  readonly #registers: RegisterBlock<'C2PMSG_2' | 'C2PMSG_33' | 'C2PMSG_34'>;
  #tableAddress = { low: 0, high: 0 };
  readonly #received = new Map<number, number>();

  constructor({ port, log, mmio, hub, modeReset }: SmuParts) {
    this.#log = log;
    this.#hub = hub;
    this.#modeReset = modeReset;
    this.#registers = mmio.declare('smu', {
      // INTERRUPTS_ENABLED: the firmware runs (smu_v13_0_check_fw_status).
      MP1_FIRMWARE_FLAGS: { dw: 0xec_4009, writable: 0, reset: 1 },
      C2PMSG_2: {
        dw: 0xec_4142,
        onWrite: (message) => port.post(() => this.#registers.set('C2PMSG_33', this.#execute(message))),
      },
      C2PMSG_33: { dw: 0xec_4261, reset: RESPONSE.OK },
      C2PMSG_34: { dw: 0xec_4262 },
    });
  }

  /** Executes a message; its argument is in C2PMSG_34, where its result goes. Returns the response. */
  #execute(message: number): number {
    const argument = this.#registers.get('C2PMSG_34');
    if (this.#received.size < MAX_COUNTED) this.#received.set(message, (this.#received.get(message) ?? 0) + 1);
    switch (message) {
      case MESSAGE.TEST:
        return this.#answer(argument + 1);
      case MESSAGE.GET_SMU_VERSION:
        return this.#answer(FIRMWARE_VERSION);
      case MESSAGE.GET_DRIVER_IF_VERSION:
        return this.#answer(DRIVER_IF_VERSION);
      case MESSAGE.GET_GFXCLK_FREQUENCY:
        return this.#answer(CLOCK_MHZ.GFX);
      case MESSAGE.GET_ENABLED_SMU_FEATURES:
        return this.#answer(0);
      case MESSAGE.SET_DRIVER_DRAM_ADDR_HIGH:
        this.#tableAddress.high = argument;
        return RESPONSE.OK;
      case MESSAGE.SET_DRIVER_DRAM_ADDR_LOW:
        this.#tableAddress.low = argument;
        return RESPONSE.OK;
      case MESSAGE.TRANSFER_TABLE_SMU_TO_DRAM:
        return this.#transferTable(argument & 0xffff);
      case MESSAGE.GFX_DEVICE_DRIVER_RESET:
        this.#modeReset();
        return RESPONSE.OK;
      // Nothing to be powered, and no GFXOFF to be entered: what is asked for is already so.
      case MESSAGE.POWER_DOWN_VCN:
      case MESSAGE.POWER_UP_VCN:
      case MESSAGE.POWER_DOWN_JPEG:
      case MESSAGE.POWER_UP_JPEG:
      case MESSAGE.ALLOW_GFX_OFF:
      case MESSAGE.DISALLOW_GFX_OFF:
      case MESSAGE.PREPARE_FOR_UNLOAD:
        return RESPONSE.OK;
      default:
        this.#log.source('smu').warn(`smu: message ${message}, argument ${hex(argument)}, is not implemented`);
        return RESPONSE.UNKNOWN_COMMAND;
    }
  }

  #answer(value: number): number {
    this.#registers.set('C2PMSG_34', value >>> 0);
    return RESPONSE.OK;
  }

  #transferTable(id: number): number {
    const table = TABLES[id];
    if (table === undefined) {
      this.#log.source('smu').warn(`smu: table ${id} is not implemented`);
      return RESPONSE.BAD_PREREQUISITE;
    }
    const { low, high } = this.#tableAddress;
    this.#hub.space(0, HUB_CLIENT.MP1).write(address48(low, high), table());
    return RESPONSE.OK;
  }

  inspect(): unknown {
    return { messages: Object.fromEntries(this.#received) };
  }
}
