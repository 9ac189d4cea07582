/** The initialization segment: version, command queue address, command doorbell, health. */
import { type Clock, type Log, RegisterBlock, type RegisterDeclaration } from 'ghostbus';
import { swap32 } from '../layouts/byte-order.js';
import { deviceTicks } from './device-clock.js';

/**
 * Two pages at the start of BAR0; the third page of `struct mlx5_init_seg` lies under the MSI-X table, as on the card.
 */
export const INIT_SEGMENT_BYTES = 0x2000;

/** Reported as firmware "28.4071.1": a release number of ours, in the range that tools know for a ConnectX-7. */
const FIRMWARE = { major: 28, minor: 4071, subMinor: 1 } as const;

/** drivers/net/ethernet/mellanox/mlx5/core/cmd.c `CMD_IF_REV`. */
const COMMAND_INTERFACE_REVISION = 5;
/** Slots of the command queue: log2 of their number, and of their bytes (core/cmd.c `mlx5_cmd_enable`). */
export const LOG_SLOTS = 5;
const LOG_SLOT_BYTES = 6;

/** include/linux/mlx5/device.h `enum mlx5_initializing_bit_offsets` and core/health.c `MLX5_NIC_IFC_*`: bits 10:8. */
const NIC_STATE_SHIFT = 8;
const NIC_STATE_MASK = 7;
/** The command queue is a page of its own; the bits below are size and state. */
const QUEUE_ALIGNMENT_MASK = 0xfff;
/** Upper halves of addresses below 2^53. */
const MAX_SAFE_HIGH = 0x1fffff;
export const NIC_STATE = { FULL: 0, DISABLED: 1, NO_DRAM: 2, SW_RESET: 7 } as const;

interface InitSegmentEvents {
  /** The driver rang: bit i means slot i of the queue at `queueAddress`. */
  commandDoorbell(slots: number, queueAddress: number): void;
  /** The driver asks for a state of the interface; 7 resets the adapter. False to stay in the present one. */
  interfaceState(state: number): boolean;
}

/** include/linux/mlx5/device.h `MLX5_HEALTH_SYNDR_FW_ERR`. */
export const HEALTH_SYNDROME = { FIRMWARE_ERROR: 0x1 } as const;

/** What the health buffer says (include/linux/mlx5/device.h `struct health_buffer`). */
interface HealthReport {
  readonly syndrome: number;
  readonly fatal: boolean;
}

/**
 * Registers of `struct mlx5_init_seg` and `struct health_buffer` (include/linux/mlx5/device.h). All are big-endian: the
 * register block stores what the CPU sees, so values pass through {@link swap32}.
 */
export class InitSegment extends RegisterBlock {
  readonly #clock: Clock;
  /** What the health counter stands at, if it was stopped. */
  readonly #frozen: { healthMs?: number };

  /** `state`: of the interface, {@link NIC_STATE}. */
  constructor(log: Log, clock: Clock, state: number, events: InitSegmentEvents) {
    const frozen: { healthMs?: number } = {};
    const declarations = {
      ...identityRegisters(),
      ...healthRegisters(),
      ...commandRegisters(state, events),
      ...timeRegisters(clock, () => frozen.healthMs ?? milliseconds(clock)),
    };
    super({ name: 'init_seg', sizeBytes: INIT_SEGMENT_BYTES, log }, declarations);
    this.#clock = clock;
    this.#frozen = frozen;
  }

  /** Shows a failure, or its end. The driver looks every two seconds. */
  reportHealth({ syndrome, fatal }: HealthReport): void {
    this.set('HEALTH_SYNDROME', swap32(syndrome << 16));
    this.set('HEALTH_RFR_SEVERITY', fatal ? RFR_BIT : 0);
  }

  /** Stops the health counter, as firmware that hangs would. */
  stopHealthCounter(): void {
    this.#frozen.healthMs = milliseconds(this.#clock);
  }
}

function milliseconds(clock: Clock): number {
  return Math.floor(Number(clock.nowNs()) / 1e6);
}

/** The request-for-reset bit is bit 7 of the byte at 0x238 (core/health.c `mlx5_health_get_rfr`). */
const RFR_BIT = 0x80;

/** core/health.c `MLX5_FW_RESET_SUPPORTED_OFFSET`: the driver may reset the adapter by itself. */
const RESET_SUPPORTED = 1 << 30;

/** What the register of the command queue reads as. */
function sizeAndState(state: number): number {
  return swap32((LOG_SLOTS << 4) | LOG_SLOT_BYTES | (state << NIC_STATE_SHIFT));
}

function commandRegisters(initialState: number, events: InitSegmentEvents): Record<string, RegisterDeclaration> {
  let high = 0;
  let low = 0;
  return {
    CMDQ_ADDR_H: {
      offset: 0x10,
      onWrite: (value) => {
        high = swap32(value);
      },
    },
    CMDQ_ADDR_L_SZ: {
      offset: 0x14,
      reset: sizeAndState(initialState),
      onWrite: (value, previous) => {
        const written = swap32(value);
        const state = (written >>> NIC_STATE_SHIFT) & NIC_STATE_MASK;
        if (state === NIC_STATE.FULL) low = (written & ~QUEUE_ALIGNMENT_MASK) >>> 0;
        // The address is write-only; size and state stay as the adapter says.
        return events.interfaceState(state) ? sizeAndState(state) : previous;
      },
    },
    CMD_DBELL: {
      offset: 0x18,
      onWrite: (value) => {
        events.commandDoorbell(swap32(value), (high & MAX_SAFE_HIGH) * 2 ** 32 + low);
        return 0;
      },
    },
  };
}

function timeRegisters(clock: Clock, healthMs: () => number): Record<string, RegisterDeclaration> {
  const readOnly = { writable: 0 };
  return {
    // Zero: the driver keeps its default timeouts (core/lib/tout.c).
    CMD_EXEC_TO: { offset: 0xff8, ...readOnly },
    CMD_Q_INIT_TO: { offset: 0xffc, ...readOnly },
    INTERNAL_TIMER_H: { offset: 0x1000, ...readOnly, onRead: () => swap32(Number(deviceTicks(clock) >> 32n)) },
    INTERNAL_TIMER_L: { offset: 0x1004, ...readOnly, onRead: () => swap32(Number(deviceTicks(clock) & 0xffffffffn)) },
    // Software takes an adapter whose counter stands still for a dead one (core/health.c `poll_health`).
    HEALTH_COUNTER: { offset: 0x1010, ...readOnly, onRead: () => swap32(healthMs() % 2 ** 32) },
    REAL_TIME_H: { offset: 0x1040, ...readOnly },
    REAL_TIME_L: { offset: 0x1044, ...readOnly },
  };
}

function identityRegisters(): Record<string, RegisterDeclaration> {
  return {
    FW_REV: { offset: 0x000, reset: swap32((FIRMWARE.minor << 16) | FIRMWARE.major), writable: 0 },
    CMDIF_REV_FW_SUB: {
      offset: 0x004,
      reset: swap32((COMMAND_INTERFACE_REVISION << 16) | FIRMWARE.subMinor),
      writable: 0,
    },
    INITIALIZING: { offset: 0x1fc, reset: swap32(RESET_SUPPORTED), writable: 0 },
  };
}

function healthRegisters(): Record<string, RegisterDeclaration> {
  const readOnly = { writable: 0 };
  return {
    HEALTH_ASSERT_VAR: { offset: 0x200, count: 6, ...readOnly },
    HEALTH_ASSERT_EXIT_PTR: { offset: 0x220, ...readOnly },
    HEALTH_ASSERT_CALLRA: { offset: 0x224, ...readOnly },
    HEALTH_TIME: { offset: 0x22c, ...readOnly },
    // All ones would mean that the device is gone (core/health.c `sensor_pci_not_working`).
    HEALTH_FW_VER: { offset: 0x230, reset: swap32((FIRMWARE.major << 24) | FIRMWARE.minor), ...readOnly },
    HEALTH_HW_ID: { offset: 0x234, ...readOnly },
    /** rfr_severity in the first byte. */
    HEALTH_RFR_SEVERITY: { offset: 0x238, ...readOnly },
    /** irisc_index, synd and ext_synd. */
    HEALTH_SYNDROME: { offset: 0x23c, ...readOnly },
  };
}
