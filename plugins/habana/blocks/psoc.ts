/**
 * PSOC_GLOBAL_CONF: how the driver talks to the boot firmware, and the reset of the whole device. The firmware handshake is
 * the driver's legacy ("static") loader, as a state machine that can be told to fail at each stage.
 *
 * Source: Linux common/firmware_if.c (hl_fw_wait_preboot_ready, hl_fw_static_init_cpu), include/gaudi/gaudi_reg_map.h,
 * include/linux/habanalabs/hl_boot_if.h, gaudi.c gaudi_hw_fini.
 */
import { type Log, RegisterBlock } from '../../../emulator/plugin.js';
import { PAGE_BYTES } from '../address-map.js';

/** enum cpu_boot_status (hl_boot_if.h). */
export const bootStatus = {
  none: 0,
  waitForEvent: 1,
  sramAvailable: 3,
  readyToBoot: 15,
  waitingForBootFit: 16,
} as const;
/** enum kmd_msg. */
export const driverMessage = { none: 0, gotoWfe: 1, fitReady: 2 } as const;
/** enum cpu_msg_status: CPU_MSG_FIT_LOADED. */
const FIT_LOADED = 1;
/** CPU_BOOT_ERR0_* bits: ENABLED, and DRAM_INIT_FAIL as the example of an error that the driver treats as fatal. */
const BOOT_ERROR_ENABLED = 0x80000000;
const DRAM_INIT_FAIL = 0x1;

/** Where the boot can be told to fail, in its order. */
export const bootFailures = ['preboot', 'boot-fit', 'u-boot', 'linux', 'error-register', 'cpu-queue'] as const;
export type BootFailure = (typeof bootFailures)[number];

/** What the firmware has come to. */
export type BootStage = 'preboot' | 'boot-fit' | 'linux' | 'halted';

/** Offsets in SRAM of two strings of 128 bytes; the upper bits are those of the SRAM's address. */
export const versionStrings = [
  { sramOffset: 0x1000, text: 'BTL version 1.0.0 Preboot version hl-gaudi-1.0.0-fw-58.2.1-sec-9 (ghostbus)' },
  { sramOffset: 0x1100, text: 'U-Boot 2021.04-hl-gaudi-1.0.0-fw-58.2.1-sec-9 (ghostbus)' },
] as const;
const SRAM_LOW = 0xf0000000;

export interface PsocEvents {
  /** The driver pulled the reset of the whole device. */
  resetRequested(): void;
  stageChanged(stage: BootStage): void;
}

export class Psoc {
  readonly registers: ReturnType<typeof psocRegisters>;
  readonly #events: PsocEvents;
  /** Stays over a reset of the device: a broken card stays broken. */
  failure: BootFailure | undefined;
  #stage: BootStage = 'preboot';

  constructor(events: PsocEvents, log?: Log) {
    this.#events = events;
    this.registers = psocRegisters(
      { message: (value) => this.#message(value), reset: (value) => this.#resetWritten(value) },
      log,
    );
    this.reset();
  }

  get stage(): BootStage {
    return this.#stage;
  }

  /** Power-on: the boot ROM has run and waits for the driver's boot-fit image. */
  reset(): void {
    this.registers.reset();
    this.#stage = 'preboot';
    this.#setStatus(this.failure === 'preboot' ? bootStatus.none : bootStatus.waitingForBootFit);
    if (this.failure === 'error-register') {
      this.registers.set('CPU_BOOT_ERR0', (BOOT_ERROR_ENABLED | DRAM_INIT_FAIL) >>> 0);
    }
  }

  /** The management processor stops (GIC interrupt HALT_MACHINE, or the message GOTO_WFE). */
  halt(): void {
    this.#enter('halted');
    this.#setStatus(bootStatus.waitForEvent);
  }

  #setStatus(status: number): void {
    this.registers.set('CPU_BOOT_STATUS', status);
  }

  #enter(stage: BootStage): void {
    this.#stage = stage;
    this.#events.stageChanged(stage);
  }

  #message(value: number): void {
    if (value === driverMessage.gotoWfe) this.halt();
    else if (value === driverMessage.fitReady) this.#imageReady();
  }

  #imageReady(): void {
    if (this.#stage === 'preboot' && this.failure !== 'boot-fit') {
      this.registers.set('CPU_CMD_STATUS_TO_HOST', FIT_LOADED);
      this.#setStatus(this.failure === 'u-boot' ? bootStatus.waitingForBootFit : bootStatus.readyToBoot);
      this.#enter('boot-fit');
    } else if (this.#stage === 'boot-fit' && this.failure !== 'linux') {
      this.#setStatus(bootStatus.sramAvailable);
      this.#enter('linux');
    }
  }

  #resetWritten(value: number): number {
    if (value !== 0) this.#events.resetRequested();
    return 0;
  }
}

interface PsocHooks {
  message(value: number): void;
  reset(value: number): number;
}

function psocRegisters(hooks: PsocHooks, log: Log | undefined) {
  return new RegisterBlock(
    { name: 'PSOC_GLOBAL_CONF', sizeBytes: PAGE_BYTES, undeclared: 'storage', ...(log && { log }) },
    {
      BOOT_SEQ_RE_START: { offset: 0x024 },
      BTM_FSM: { offset: 0x028, writable: 0 },
      PREBOOT_PCIE_EN: { offset: 0x074 },
      HW_STATE: { offset: 0x100 },
      // Zero: legacy loader, and the driver does everything itself that firmware could have done (gaudi.md §3.2).
      CPU_BOOT_DEV_STS0: { offset: 0x150, writable: 0 },
      CPU_BOOT_DEV_STS1: { offset: 0x154, writable: 0 },
      CPU_CMD_STATUS_TO_HOST: { offset: 0x15c },
      CPU_BOOT_ERR0: { offset: 0x160, writable: 0 },
      CPU_BOOT_ERR1: { offset: 0x164, writable: 0 },
      PREBOOT_VER_OFFSET: { offset: 0x170, writable: 0, reset: SRAM_LOW + versionStrings[0].sramOffset },
      UBOOT_VER_OFFSET: { offset: 0x174, writable: 0, reset: SRAM_LOW + versionStrings[1].sramOffset },
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
