/**
 * PSOC_GLOBAL_CONF: how the driver talks to the boot firmware, and the reset of the whole device. The firmware
 * handshake is the driver's legacy ("static") loader, on a secured card the dynamic one, as a state machine that can be
 * told to fail at each stage.
 *
 * Source: Linux common/firmware_if.c (hl_fw_wait_preboot_ready, hl_fw_static_init_cpu), include/gaudi/gaudi_reg_map.h,
 * include/linux/habanalabs/hl_boot_if.h, gaudi.c gaudi_hw_fini.
 */
import { type Log, RegisterBlock } from 'ghostbus';
import type { Card } from '../card.js';
import { Comms, commsDescriptor, isMessage } from '../firmware/comms.js';
import { PAGE_BYTES, SRAM_BASE } from '../interconnect/address-map.js';

/** enum cpu_boot_status (hl_boot_if.h). */
export const BOOT_STATUS_CODE = {
  none: 0,
  waitForEvent: 1,
  sramAvailable: 3,
  readyToBoot: 15,
  waitingForBootFit: 16,
} as const;
/** enum kmd_msg. */
const DRIVER_MESSAGE = { none: 0, gotoWfe: 1, fitReady: 2 } as const;
/** enum cpu_msg_status: CPU_MSG_FIT_LOADED. */
const FIT_LOADED = 1;
/** CPU_BOOT_ERR0_* bits: ENABLED, and DRAM_INIT_FAIL as the example of an error that the driver treats as fatal. */
const BOOT_ERROR_ENABLED = 0x80000000;
const DRAM_INIT_FAIL = 0x1;

/** What the firmware has come to. */
type BootStage = 'preboot' | 'boot-fit' | 'linux' | 'halted';

/** What the processor says it runs. Made up, in the form that the driver parses. */
export const FIRMWARE_VERSION = 'hl-gaudi-1.0.0-fw-58.2.1-sec-9';
/** Offsets in SRAM of two strings of 128 bytes; the upper bits are those of the SRAM's address. */
export const VERSION_BYTES = 128;
export const VERSION_STRINGS = [
  { sramOffset: 0x1000, text: `BTL version 1.0.0 Preboot version ${FIRMWARE_VERSION} (ghostbus)` },
  { sramOffset: 0x1100, text: `U-Boot 2021.04-${FIRMWARE_VERSION} (ghostbus)` },
] as const;
const SRAM_LOW = 0xf0000000;
/** Where a secured card's firmware leaves its descriptor. */
const DESCRIPTOR_IN_SRAM = 0x2000;
/** Where images go: gaudiP.h BOOT_FIT_SRAM_OFFSET, LINUX_FW_OFFSET. */
const IMAGE_ADDRESS = { preboot: SRAM_BASE + 0x200000, 'boot-fit': 0x800000 } as const;

/**
 * CPU_BOOT_DEV_STS0 of a secured card (hl_boot_if.h): valid; secured, credits and scramblers set up by the firmware,
 * which resets the card itself, speaks COMMS, has set up address translation, keeps the GIC to itself and polls
 * registers for interrupts instead.
 */
const SECURED_FEATURES = [31, 0, 5, 6, 8, 9, 10, 16, 17, 20, 22].reduce((features, bit) => features + 2 ** bit, 0);
const INTERRUPT_REGISTERS = 8;

interface PsocEvents {
  /** The driver pulled the reset of the whole device, or asked the firmware to do it. */
  resetRequested(): void;
  stageChanged(stage: BootStage): void;
  /** A register that the firmware of a secured card polls was given this interrupt. */
  interruptPolled(interrupt: number): void;
  /** Device memory, as the firmware reaches it. */
  store(address: number, bytes: Uint8Array): void;
  load32(address: number): number;
}

export class Psoc {
  readonly registers: ReturnType<typeof psocRegisters>;
  readonly #events: PsocEvents;
  readonly #card: Card;
  #stage: BootStage = 'preboot';
  readonly #comms: Comms | undefined;

  /** Power-on: the boot ROM has run and waits for the driver's boot-fit image. */
  constructor(card: Card, events: PsocEvents) {
    this.#card = card;
    this.#events = events;
    this.#comms = card.isSecured ? this.#makeComms() : undefined;
    this.registers = psocRegisters(
      {
        message: (value) => this.#message(value),
        reset: (value) => this.#resetWritten(value),
        interrupt: (value) => this.#interruptWritten(value),
      },
      card.isSecured ? SECURED_FEATURES : 0,
      card.log,
    );
    this.#setStatus(card.bootFailure === 'preboot' ? BOOT_STATUS_CODE.none : BOOT_STATUS_CODE.waitingForBootFit);
    if (card.bootFailure === 'error-register') {
      this.registers.set('CPU_BOOT_ERR0', (BOOT_ERROR_ENABLED | DRAM_INIT_FAIL) >>> 0);
    }
  }

  get stage(): BootStage {
    return this.#stage;
  }

  /** The management processor stops (GIC interrupt HALT_MACHINE, or the message GOTO_WFE). */
  halt(): void {
    this.#enter('halted');
    this.#setStatus(BOOT_STATUS_CODE.waitForEvent);
  }

  #setStatus(status: number): void {
    this.registers.set('CPU_BOOT_STATUS', status);
  }

  #enter(stage: BootStage): void {
    this.#stage = stage;
    this.#events.stageChanged(stage);
  }

  #message(value: number): void {
    if (this.#comms !== undefined) this.#comms.command(value);
    else if (value === DRIVER_MESSAGE.gotoWfe) this.halt();
    else if (value === DRIVER_MESSAGE.fitReady) this.#imageReady();
  }

  #imageReady(): void {
    if (this.#stage === 'preboot' && this.#accepts()) this.registers.set('CPU_CMD_STATUS_TO_HOST', FIT_LOADED);
    this.#execute();
  }

  #accepts(): boolean {
    return this.#stage !== 'preboot' || this.#card.bootFailure !== 'boot-fit';
  }

  #makeComms(): Comms {
    return new Comms({
      answer: (value) => this.registers.set('CPU_CMD_STATUS_TO_HOST', value),
      describe: () => {
        this.#events.store(SRAM_BASE + DESCRIPTOR_IN_SRAM, commsDescriptor(this.#version, this.#imageAddress));
        return DESCRIPTOR_IN_SRAM;
      },
      accepts: () => this.#accepts(),
      execute: () => {
        if (!isMessage(this.#events.load32(this.#imageAddress))) this.#execute();
      },
      resetDevice: () => this.#events.resetRequested(),
    });
  }

  get #version(): string {
    return VERSION_STRINGS[this.#stage === 'preboot' ? 0 : 1].text;
  }

  get #imageAddress(): number {
    return this.#stage === 'preboot' ? IMAGE_ADDRESS.preboot : IMAGE_ADDRESS['boot-fit'];
  }

  /** The image that the driver has loaded runs. */
  #execute(): void {
    if (this.#stage === 'preboot' && this.#accepts()) {
      this.#setStatus(
        this.#card.bootFailure === 'u-boot' ? BOOT_STATUS_CODE.waitingForBootFit : BOOT_STATUS_CODE.readyToBoot,
      );
      this.#enter('boot-fit');
    } else if (this.#stage === 'boot-fit' && this.#card.bootFailure !== 'linux') {
      this.#setStatus(BOOT_STATUS_CODE.sramAvailable);
      this.#enter('linux');
    }
  }

  /** On a card that is not secured these are scratchpads. */
  #interruptWritten(value: number): number {
    if (this.#comms === undefined) return value;
    this.#events.interruptPolled(value);
    return 0;
  }

  #resetWritten(value: number): number {
    if (value !== 0) this.#events.resetRequested();
    return 0;
  }
}

interface PsocHooks {
  message(value: number): void;
  reset(value: number): number;
  interrupt(value: number): number;
}

function psocRegisters(hooks: PsocHooks, features: number, log: Log) {
  return new RegisterBlock(
    { name: 'PSOC_GLOBAL_CONF', sizeBytes: PAGE_BYTES, undeclared: 'storage', log },
    {
      BOOT_SEQ_RE_START: { offset: 0x024 },
      BTM_FSM: { offset: 0x028, writable: 0 },
      PREBOOT_PCIE_EN: { offset: 0x074 },
      HW_STATE: { offset: 0x100 },
      // gaudi_reg_map.h mmGIC_HOST_PI_UPD_IRQ_POLL_REG and following.
      IRQ_POLL: { offset: 0x104, count: INTERRUPT_REGISTERS, onWrite: (value) => hooks.interrupt(value) },
      // Zero: legacy loader, and the driver does everything itself that firmware could have done.
      CPU_BOOT_DEV_STS0: { offset: 0x150, writable: 0, reset: features },
      CPU_BOOT_DEV_STS1: { offset: 0x154, writable: 0 },
      CPU_CMD_STATUS_TO_HOST: { offset: 0x15c },
      CPU_BOOT_ERR0: { offset: 0x160, writable: 0 },
      CPU_BOOT_ERR1: { offset: 0x164, writable: 0 },
      PREBOOT_VER_OFFSET: { offset: 0x170, writable: 0, reset: SRAM_LOW + VERSION_STRINGS[0].sramOffset },
      UBOOT_VER_OFFSET: { offset: 0x174, writable: 0, reset: SRAM_LOW + VERSION_STRINGS[1].sramOffset },
      CPU_BOOT_STATUS: { offset: 0x300 },
      KMD_MSG_TO_CPU: { offset: 0x304, onWrite: (value) => hooks.message(value) },
      TRACE_AWUSER: { offset: 0x338 },
      TRACE_ARUSER: { offset: 0x33c },
      SW_ALL_RST_CFG_L: { offset: 0x490 },
      SW_ALL_RST_CFG_H: { offset: 0x494 },
      SW_ALL_RST: { offset: 0x498, onWrite: (value) => hooks.reset(value) },
      SOFT_RST_CFG_L: { offset: 0x4a4 },
      SOFT_RST_CFG_H: { offset: 0x4a8 },
    },
  );
}
