import type { FunctionPort, RegisterBlock } from 'ghostbus';
import { BitFields32, type FloodGuard } from 'ghostbus/kit';
import type { Mmio } from '../bus/mmio.js';
import { address48 } from '../bus/registers.js';
import { IH_CLIENT, type InterruptHandler } from '../interrupts/ih.js';
import { HUB_CLIENT, type Hub } from '../memory/hub.js';

/** Mailbox commands in C2PMSG_64 (psp_gfx_if.h, GFX_CTRL_CMD_ID_*). */
const C2PMSG_64 = new BitFields32({ COMMAND: [16, 4] });
const MAILBOX = { INIT_GPCOM_RING: 2, DESTROY_RINGS: 3, MODE1_RESET: 7, GBR_IH_SET: 8 } as const;

/** Ready and response flag; status in b15:0, 0 = good (amdgpu_psp.h MBOX_TOS_READY_FLAG). */
const READY = 0x8000_0000;

/** osssys_4_0_sh_mask.h IH_CLIENT_CFG_DATA. */
const IH_CLIENT_CFG_DATA = new BitFields32({ RING_ID: [20, 2] });

/** Clients by their index in GBR_IH_SET (psp_v12_0_reroute_ih); this ASIC has no UMC. */
const IH_CLIENT_OF_INDEX: Readonly<Record<number, number>> = { 3: IH_CLIENT.VMC };
const UMC_INDEX = 4;

/** struct psp_gfx_rb_frame (psp_gfx_if.h): addresses low and high half, byte offsets. */
const FRAME_BYTES = 64;
const FRAME = { COMMAND: 0, FENCE: 12, FENCE_VALUE: 20 } as const;
/** struct psp_gfx_cmd_resp. */
const COMMAND = { ID: 8, STATUS: 864, SESSION_ID: 868 } as const;

/** Larger rings are not looked at beyond this; the driver's has 4 KiB (psp_v12_0_ring_init). */
const MAX_RING_BYTES = 2 ** 20;
/** Kinds of commands that are counted; a guest could invent 2^32. */
const MAX_COUNTED = 64;

/** Names of the ring's commands, for inspection only: none has an effect that the driver could see (GFX_CMD_ID_*). */
const COMMANDS: Readonly<Record<number, string>> = {
  1: 'LOAD_TA',
  2: 'UNLOAD_TA',
  3: 'INVOKE_CMD',
  4: 'LOAD_ASD',
  5: 'SETUP_TMR',
  6: 'LOAD_IP_FW',
  7: 'DESTROY_TMR',
};

/** What the PSP needs of the GPU. `modeReset` is called when the driver asks for a MODE1 reset. */
interface PspParts {
  readonly port: Pick<FunctionPort, 'post'>;
  readonly log: FloodGuard;
  readonly mmio: Mmio;
  readonly hub: Hub;
  readonly interrupts: InterruptHandler;
  readonly modeReset: () => void;
}

/**
 * Platform security processor (MP0 12.0.1, driven by psp_v12_0.c and amdgpu_psp.c): the mailbox and the command ring.
 * Every command succeeds; firmware is accepted unread. Registers: asic_reg/mp/mp_12_0_0_offset.h on segment 0x16000.
 */
export class Psp {
  readonly #log: FloodGuard;
  readonly #hub: Hub;
  readonly #port: Pick<FunctionPort, 'post'>;
  readonly #modeReset: () => void;
  readonly #interrupts: InterruptHandler;
  readonly #registers: RegisterBlock<'C2PMSG_64' | 'C2PMSG_67' | 'C2PMSG_69' | 'C2PMSG_70' | 'C2PMSG_71'>;
  #ring: { readonly address: number; readonly sizeBytes: number } | undefined;
  #position = 0;
  #scheduled = false;
  readonly #commands = new Map<string, number>();

  constructor(parts: PspParts) {
    this.#log = parts.log;
    this.#hub = parts.hub;
    this.#interrupts = parts.interrupts;
    this.#port = parts.port;
    this.#modeReset = parts.modeReset;
    this.#registers = parts.mmio.declare('psp', {
      // Bit 31: the boot firmware has finished (amdgpu_discovery_get_tmr_info, psp_v12_0_mode1_reset).
      C2PMSG_33: { dw: 0x16061, writable: 0, reset: READY },
      C2PMSG_35: { dw: 0x16063, onWrite: () => READY, reset: READY },
      C2PMSG_36: { dw: 0x16064 },
      C2PMSG_64: { dw: 0x16080, reset: READY, onWrite: (value) => this.#mailbox(value) },
      C2PMSG_67: { dw: 0x16083, onWrite: () => this.#submitted() },
      C2PMSG_69: { dw: 0x16085 },
      C2PMSG_70: { dw: 0x16086 },
      C2PMSG_71: { dw: 0x16087 },
      // Zero: no secure OS was left running by an earlier driver (soc15_need_reset_on_init).
      C2PMSG_81: { dw: 0x16091, writable: 0 },
    });
  }

  #mailbox(value: number): number {
    const registers = this.#registers;
    switch (C2PMSG_64.get(value, 'COMMAND')) {
      case MAILBOX.INIT_GPCOM_RING:
        this.#ring = {
          address: address48(registers.get('C2PMSG_69'), registers.get('C2PMSG_70')),
          sizeBytes: registers.get('C2PMSG_71'),
        };
        this.#position = 0;
        registers.set('C2PMSG_67', 0);
        break;
      case MAILBOX.DESTROY_RINGS:
        this.#ring = undefined;
        break;
      case MAILBOX.MODE1_RESET:
        this.#modeReset();
        break;
      case MAILBOX.GBR_IH_SET:
        this.#routeInterrupts(registers.get('C2PMSG_69'), registers.get('C2PMSG_70'));
        break;
      default:
        this.#log
          .source('psp mailbox')
          .warn(`psp: mailbox command 0x${value.toString(16)} is not implemented; answered as done`);
    }
    return READY;
  }

  /** IH_CLIENT_CFG_DATA of one client; 6.12 moves page faults to ring 1 with it (psp_v12_0_reroute_ih). */
  #routeInterrupts(index: number, configuration: number): void {
    const client = IH_CLIENT_OF_INDEX[index];
    if (client !== undefined) this.#interrupts.route(client, IH_CLIENT_CFG_DATA.get(configuration, 'RING_ID'));
    else if (index !== UMC_INDEX)
      this.#log.source('psp mailbox').warn(`psp: interrupt client index ${index} is not known, not routed`);
  }

  #submitted(): undefined {
    if (!this.#scheduled) {
      this.#scheduled = true;
      this.#port.post(() => {
        this.#scheduled = false;
        this.#consume();
      });
    }
    return undefined;
  }

  /** Executes the frames up to the write pointer, at most one lap. */
  #consume(): void {
    const ring = this.#ring;
    const frames = ring === undefined ? 0 : Math.floor(Math.min(ring.sizeBytes, MAX_RING_BYTES) / FRAME_BYTES);
    if (ring === undefined || frames === 0) return;
    const end = Math.floor((this.#registers.get('C2PMSG_67') * 4) / FRAME_BYTES) % frames;
    for (let count = 0; this.#position !== end && count < frames; count++) {
      this.#frame(ring.address + this.#position * FRAME_BYTES);
      this.#position = (this.#position + 1) % frames;
    }
  }

  #frame(address: number): void {
    const space = this.#hub.space(0, HUB_CLIENT.MP0);
    const frame = new Uint8Array(FRAME_BYTES);
    space.read(address, frame);
    const view = new DataView(frame.buffer);
    const at = (offset: number) => view.getUint32(offset, true);
    const addressAt = (offset: number) => address48(at(offset), at(offset + 4));
    const command = addressAt(FRAME.COMMAND);
    const id = space.readU32(command + COMMAND.ID);
    const name = COMMANDS[id] ?? `command ${id}`;
    if (this.#commands.size < MAX_COUNTED) this.#commands.set(name, (this.#commands.get(name) ?? 0) + 1);
    space.writeU32(command + COMMAND.STATUS, 0);
    space.writeU32(command + COMMAND.SESSION_ID, 1);
    // Last: the driver polls it.
    space.writeU32(addressAt(FRAME.FENCE), at(FRAME.FENCE_VALUE));
  }

  inspect(): unknown {
    return { ring: this.#ring !== undefined, commands: Object.fromEntries(this.#commands) };
  }
}
