/**
 * Port registers behind ACCESS_REG: link, MTU, counters, description. Source of numbers: include/linux/mlx5/driver.h
 * `MLX5_REG_*`.
 */
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import {
  eth8023CntrsGrpDataLayout,
  paosReg,
  pmtuReg,
  ppcntReg,
  ptysReg,
  pvlcReg,
} from '../layouts/access-registers.js';
import { accessRegisterIn } from '../layouts/commands.js';
import { bytesOf, subview } from '../layouts/layout.js';
import type { Counters, Traffic } from './counters.js';
import { type Profile, SPEED_BITS } from './profile.js';
import type { Vport } from './vport.js';

const REGISTER = {
  PMTU: 0x5003,
  PTYS: 0x5004,
  PAOS: 0x5006,
  PFCC: 0x5007,
  PPCNT: 0x5008,
  PVLC: 0x500f,
  NODE_DESCRIPTION: 0x6001,
  HOST_ENDIANNESS: 0x7004,
  DTOR: 0xc00e,
} as const;

const DATA_START = 0x10;
/** access_register_in.op_mod: 0 writes, 1 reads. */
const OP_MOD_READ = 1;
/** The longest register of ours, PPCNT, and room. */
const DATA_BYTES = 0x200;
const ETHERNET_MAX_MTU = 9978;
const IB_MAX_MTU = 4096;
/** PTYS, InfiniBand: 1x, 4x, 8x are possible, 4x is active; SDR to EDR are possible, EDR is active. */
const IB_WIDTH = { CAPABLE: 0x7, ACTIVE: 0x4 } as const;
const IB_SPEED = { CAPABLE: 0x3f, ACTIVE: 0x20 } as const;
const PORT_UP = 1;
const PORT_DOWN = 2;
/** PPCNT.grp: IEEE 802.3. */
const GROUP_802_3 = 0;

type Access = (data: DataView, isWrite: boolean) => void;

export class AccessRegisters {
  readonly #profile: Profile;
  readonly #vport: Vport;
  readonly #counters: Counters;
  readonly #table: ReadonlyMap<number, Access>;
  readonly #description = new Uint8Array(64);

  constructor(profile: Profile, vport: Vport, counters: Counters) {
    this.#profile = profile;
    this.#vport = vport;
    this.#counters = counters;
    this.#description.set(new TextEncoder().encode('ghostbus rdma'));
    this.#table = new Map<number, Access>([
      [REGISTER.PMTU, (data, isWrite) => this.#mtu(data, isWrite)],
      [REGISTER.PTYS, (data) => this.#linkType(data)],
      [REGISTER.PAOS, (data, isWrite) => this.#adminStatus(data, isWrite)],
      [REGISTER.PFCC, () => {}],
      [REGISTER.PPCNT, (data) => this.#portCounters(data)],
      [REGISTER.PVLC, (data) => pvlcReg.set(data, 'vl_hw_cap', 4)],
      [REGISTER.NODE_DESCRIPTION, (data, isWrite) => this.#nodeDescription(data, isWrite)],
      // The driver says that the host is little-endian; atomics follow their own setting.
      [REGISTER.HOST_ENDIANNESS, () => {}],
      // All zero: the driver keeps its default timeouts.
      [REGISTER.DTOR, () => {}],
    ]);
  }

  get commands(): CommandTable {
    return { ACCESS_REG: (call) => this.#access(call) };
  }

  #access(call: CommandCall): void {
    const register = accessRegisterIn.get(call.input, 'register_id');
    const access = this.#table.get(register);
    if (access === undefined) {
      throw new CommandError(STATUS.BAD_PARAMETER, `there is no register 0x${register.toString(16)}`);
    }
    const data = subview(call.output, DATA_START, DATA_BYTES);
    bytesOf(data).set(bytesOf(subview(call.input, DATA_START, DATA_BYTES)));
    access(data, call.opMod !== OP_MOD_READ);
  }

  #mtu(data: DataView, isWrite: boolean): void {
    if (this.#profile.link === 'ib') {
      pmtuReg.fill(data, { max_mtu: IB_MAX_MTU, admin_mtu: IB_MAX_MTU, oper_mtu: IB_MAX_MTU });
      return;
    }
    if (isWrite) this.#vport.hardwareMtu = Math.min(pmtuReg.get(data, 'admin_mtu'), ETHERNET_MAX_MTU);
    const mtu = this.#vport.hardwareMtu;
    pmtuReg.fill(data, { max_mtu: ETHERNET_MAX_MTU, admin_mtu: mtu, oper_mtu: mtu });
  }

  #linkType(data: DataView): void {
    if (this.#profile.link === 'ib') {
      ptysReg.fill(data, {
        ib_link_width_capability: IB_WIDTH.CAPABLE,
        ib_proto_capability: IB_SPEED.CAPABLE,
        ib_link_width_oper: IB_WIDTH.ACTIVE,
        ib_proto_oper: IB_SPEED.ACTIVE,
      });
      return;
    }
    const bit = 2 ** SPEED_BITS[this.#profile.speedGbps];
    ptysReg.fill(data, {
      eth_proto_capability: bit,
      eth_proto_admin: bit,
      eth_proto_oper: this.#vport.isUp ? bit : 0,
    });
  }

  #adminStatus(data: DataView, isWrite: boolean): void {
    if (isWrite) this.#vport.setAdminUp(paosReg.get(data, 'admin_status') === PORT_UP);
    const status = this.#vport.isUp ? PORT_UP : PORT_DOWN;
    paosReg.fill(data, { admin_status: status, oper_status: status });
  }

  #portCounters(data: DataView): void {
    const group = ppcntReg.get(data, 'grp');
    const start = ppcntReg.byteOf('counter_set');
    bytesOf(subview(data, start)).fill(0);
    if (group !== GROUP_802_3) return;
    const set = (
      field: 'a_frames_transmitted_ok' | 'a_frames_received_ok' | 'a_octets_transmitted_ok' | 'a_octets_received_ok',
      value: number,
    ): void => eth8023CntrsGrpDataLayout.set64(data, `${field}_high`, BigInt(value), start);
    const sent = this.#sum('transmitted_eth_unicast', 'transmitted_eth_multicast', 'transmitted_eth_broadcast');
    const received = this.#sum('received_eth_unicast', 'received_eth_multicast', 'received_eth_broadcast');
    set('a_frames_transmitted_ok', sent.packets);
    set('a_octets_transmitted_ok', sent.octets);
    set('a_frames_received_ok', received.packets);
    set('a_octets_received_ok', received.octets);
  }

  #sum(...kinds: Traffic[]): { packets: number; octets: number } {
    return kinds
      .map((kind) => this.#counters.traffic(kind))
      .reduce((sum, { packets, octets }) => ({ packets: sum.packets + packets, octets: sum.octets + octets }));
  }

  #nodeDescription(data: DataView, isWrite: boolean): void {
    const bytes = bytesOf(data).subarray(0, this.#description.length);
    if (isWrite) this.#description.set(bytes);
    else bytes.set(this.#description);
  }
}
