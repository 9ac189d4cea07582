/** The port as the driver sees it: addresses, state, GIDs, MTU; for Ethernet and for InfiniBand. */
import type { FunctionPort } from 'ghostbus';
import { ROCE_ADDRESS_TABLE_SIZE } from '../firmware/capabilities.js';
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import {
  modifyNicVportContextIn,
  modifyVportStateIn,
  queryHcaVportContextOut,
  queryHcaVportGidIn,
  queryHcaVportGidOut,
  queryHcaVportPkeyIn,
  queryNicVportContextIn,
  queryNicVportContextOut,
  queryRoceAddressIn,
  queryRoceAddressOut,
  queryVportStateOut,
  setRoceAddressIn,
} from '../layouts/commands.js';
import {
  hcaVportContext,
  macAddressLayout,
  modifyNicVportFieldSelect,
  nicVportContext,
  roceAddrLayout,
} from '../layouts/contexts.js';
import { eqePortState } from '../layouts/entries.js';
import { bytesOf, subview } from '../layouts/layout.js';
import { EVENT, type EventQueues } from '../queues/event-queue.js';
import { BROADCAST_MAC, isGroupMac } from './addresses.js';
import type { Link, Profile } from './profile.js';

/** The only port. */
const PORT_NUMBER = 1;
const GID_BYTES = 16;
const MAC_ENTRY_BYTES = 8;
/** log_max_current_uc_list and log_max_current_mc_list are 7. */
const MAX_ADDRESSES = 128;
const DEFAULT_PKEY = 0xffff;
/** QUERY_HCA_VPORT_PKEY and _GID: every entry at once. */
const ALL_ENTRIES = 0xffff;
const PKEYS = 128;
/** InfiniBand: 16 entries (gid_table_size code 1). */
const IB_GIDS = 16;
/** hca_vport_context.vport_state and port_physical_state (IB volume 1 §14.2.5.6). */
const IB_PORT = { DOWN: 1, ACTIVE: 4, PHYSICAL_POLLING: 2, PHYSICAL_LINK_UP: 5 } as const;
/** PortInfo:CapabilityMask: communication management (bit 16). */
const CM_SUPPORTED = 0x10000;
/** `struct mlx5_eqe_port_state` sub types (include/linux/mlx5/device.h `MLX5_PORT_CHANGE_SUBTYPE_*`). */
const PORT_CHANGE = { DOWN: 1, ACTIVE: 4 } as const;
/**
 * Bytes of an Ethernet frame around its payload, as PMTU counts them (core/en.h `MLX5E_HW2SW_MTU`: header, VLAN, FCS).
 */
const FRAME_OVERHEAD_BYTES = 22;
/** include/rdma/ib_addr.h `iboe_get_mtu`: everything between the Ethernet payload and the InfiniBand payload. */
const ROCE_OVERHEAD_BYTES = 40 + 8 + 12 + 4 + 28 + 4;
const IB_MTUS = [4096, 2048, 1024, 512, 256] as const;
/** set_roce_address: roce_version 2 is RoCEv2, roce_l3_type 0 is IPv4 (drivers/infiniband/hw/mlx5/main.c). */
const ROCE_VERSION_2 = 2;
const ROCE_L3_IPV4 = 0;
/** nic_vport_context.allowed_list_type. */
const LIST_TYPE = { UNICAST: 0, MULTICAST: 1, VLAN: 2 } as const;

export interface GidEntry {
  readonly gid: Uint8Array;
  readonly mac: number;
  readonly isVersion2: boolean;
  readonly isIpv4: boolean;
}

export class Vport {
  readonly mac: number;
  readonly #port: Pick<FunctionPort, 'log'>;
  readonly #profile: Profile;
  readonly #events: EventQueues;
  readonly #nic = nicVportContext.create();
  readonly #gids = new Map<number, GidEntry>();
  readonly #roceAddresses = new Map<number, Uint8Array>();
  #unicast: readonly number[] = [];
  #multicast: readonly number[] = [];
  #vlans: readonly number[] = [];
  #qkeyViolations = 0;
  #linkUp = true;
  #adminUp = true;
  /** PMTU's admin_mtu: what the driver wants frames to be. */
  hardwareMtu: number;

  constructor(port: Pick<FunctionPort, 'log'>, profile: Profile, events: EventQueues) {
    this.#port = port;
    this.#profile = profile;
    this.#events = events;
    this.mac = profile.mac;
    this.hardwareMtu = profile.mtu + FRAME_OVERHEAD_BYTES;
    nicVportContext.set(this.#nic, 'mtu', profile.mtu);
    for (const field of ['node_guid', 'port_guid', 'system_image_guid'] as const) {
      nicVportContext.set64(this.#nic, field, profile.guid);
    }
    setMac(this.#nic, nicVportContext.byteOf('permanent_address'), profile.mac);
    if (profile.link === 'ib') this.#gids.set(0, linkLocalGid(profile));
  }

  get commands(): CommandTable {
    return {
      QUERY_VPORT_STATE: (call) =>
        queryVportStateOut.fill(call.output, { admin_state: this.#adminUp ? 1 : 0, state: this.isUp ? 1 : 0 }),
      MODIFY_VPORT_STATE: (call) => {
        this.setAdminUp(modifyVportStateIn.get(call.input, 'admin_state') !== 0);
      },
      QUERY_NIC_VPORT_CONTEXT: (call) => this.#queryNic(call),
      MODIFY_NIC_VPORT_CONTEXT: (call) => this.#modifyNic(call),
      SET_ROCE_ADDRESS: (call) => this.#setRoceAddress(call),
      QUERY_ROCE_ADDRESS: (call) => {
        const stored = this.#roceAddresses.get(queryRoceAddressIn.get(call.input, 'roce_address_index'));
        if (stored !== undefined) bytesOf(queryRoceAddressOut.part(call.output, 'roce_address')).set(stored);
      },
      QUERY_HCA_VPORT_CONTEXT: (call) =>
        this.#describeHca(queryHcaVportContextOut.part(call.output, 'hca_vport_context')),
      MODIFY_HCA_VPORT_CONTEXT: () => {},
      QUERY_HCA_VPORT_GID: (call) => this.#queryGids(call),
      QUERY_HCA_VPORT_PKEY: (call) => queryPkeys(call),
      // The list of addresses that a switch in the adapter would deliver: the vport context has it already.
      SET_L2_TABLE_ENTRY: () => {},
      DELETE_L2_TABLE_ENTRY: () => {},
    };
  }

  get isUp(): boolean {
    return this.#linkUp && this.#adminUp;
  }

  get link(): Link {
    return this.#profile.link;
  }

  get lid(): number {
    return this.#profile.link === 'ib' ? this.#profile.lid : 0;
  }

  /** Largest payload of a datagram. */
  get activeMtuBytes(): number {
    if (this.#profile.link === 'ib') return 4096;
    const room = this.hardwareMtu - FRAME_OVERHEAD_BYTES - ROCE_OVERHEAD_BYTES;
    return IB_MTUS.find((mtu) => mtu <= room) ?? 256;
  }

  /** The cable: tells the driver. */
  setLinkUp(up: boolean): void {
    this.#change(() => {
      this.#linkUp = up;
    });
  }

  setAdminUp(up: boolean): void {
    this.#change(() => {
      this.#adminUp = up;
    });
  }

  gid(index: number): GidEntry | undefined {
    return this.#gids.get(index);
  }

  /** Whether one of the GIDs is this one. */
  hasGid(gid: Uint8Array): boolean {
    for (const entry of this.#gids.values()) if (equalBytes(entry.gid, gid)) return true;
    return false;
  }

  /**
   * Whether frames to this address are for the host: its own addresses, its groups, or everything in promiscuous mode.
   */
  acceptsMac(mac: number): boolean {
    if (mac === this.mac || mac === BROADCAST_MAC || this.#unicast.includes(mac)) return true;
    if (nicVportContext.get(this.#nic, 'promisc_all') === 1) return true;
    if (!isGroupMac(mac)) return nicVportContext.get(this.#nic, 'promisc_uc') === 1;
    return this.#multicast.includes(mac) || nicVportContext.get(this.#nic, 'promisc_mc') === 1;
  }

  countQkeyViolation(): void {
    this.#qkeyViolations++;
  }

  inspect(): unknown {
    return {
      up: this.isUp,
      mtu: nicVportContext.get(this.#nic, 'mtu'),
      unicast: this.#unicast.length,
      multicast: this.#multicast.length,
      gids: [...this.#gids].map(([index, { gid, isVersion2 }]) => ({
        index,
        gid: Buffer.from(gid).toString('hex'),
        version: isVersion2 ? 2 : 1,
      })),
    };
  }

  #change(apply: () => void): void {
    const before = this.isUp;
    apply();
    if (this.isUp === before) return;
    const data = eqePortState.create();
    eqePortState.set(data, 'port', PORT_NUMBER);
    this.#events.post(EVENT.PORT_CHANGE, this.isUp ? PORT_CHANGE.ACTIVE : PORT_CHANGE.DOWN, data);
  }

  #queryNic(call: CommandCall): void {
    const start = queryNicVportContextOut.byteOf('nic_vport_context');
    bytesOf(subview(call.output, start, this.#nic.byteLength)).set(bytesOf(this.#nic));
    nicVportContext.set(call.output, 'qkey_violation_counter', this.#qkeyViolations & 0xffff, start);
    const type = queryNicVportContextIn.get(call.input, 'allowed_list_type');
    const list = this.#list(type);
    const listStart = start + nicVportContext.byteOf('current_uc_mac_address');
    const fits = Math.max(0, Math.floor((call.outputBytes - listStart) / MAC_ENTRY_BYTES));
    nicVportContext.set(call.output, 'allowed_list_type', type, start);
    nicVportContext.set(call.output, 'allowed_list_size', Math.min(list.length, fits), start);
    list.slice(0, fits).forEach((entry, index) => {
      setMac(call.output, listStart + index * MAC_ENTRY_BYTES, entry);
    });
  }

  #list(type: number): readonly number[] {
    if (type === LIST_TYPE.UNICAST) return this.#unicast;
    return type === LIST_TYPE.MULTICAST ? this.#multicast : this.#vlans;
  }

  #modifyNic(call: CommandCall): void {
    const select = subview(call.input, modifyNicVportContextIn.byteOf('field_select'), 4);
    const start = modifyNicVportContextIn.byteOf('nic_vport_context');
    const selected = (field: keyof typeof modifyNicVportFieldSelect.fields): boolean =>
      modifyNicVportFieldSelect.get(select, field) === 1;
    const take = (field: keyof typeof nicVportContext.fields): void =>
      nicVportContext.set(this.#nic, field, nicVportContext.get(call.input, field, start));
    if (selected('roce_en')) take('roce_en');
    if (selected('mtu')) take('mtu');
    if (selected('min_inline')) take('min_wqe_inline_mode');
    if (selected('disable_uc_local_lb')) take('disable_uc_local_lb');
    if (selected('disable_mc_local_lb')) take('disable_mc_local_lb');
    if (selected('promisc')) for (const field of ['promisc_uc', 'promisc_mc', 'promisc_all'] as const) take(field);
    if (selected('change_event')) take('arm_change_event');
    if (selected('addresses_list')) this.#setList(call, start);
    if (selected('permanent_address')) {
      throw new CommandError(STATUS.BAD_PARAMETER, 'the permanent address is an option of the device');
    }
  }

  #setList(call: CommandCall, start: number): void {
    const type = nicVportContext.get(call.input, 'allowed_list_type', start);
    const size = nicVportContext.get(call.input, 'allowed_list_size', start);
    if (size > MAX_ADDRESSES) throw new CommandError(STATUS.LIMIT_EXCEEDED, `a list of ${size} addresses`);
    const listStart = start + nicVportContext.byteOf('current_uc_mac_address');
    call.bytes(listStart, size * MAC_ENTRY_BYTES);
    const list = Array.from({ length: size }, (_, index) => getMac(call.input, listStart + index * MAC_ENTRY_BYTES));
    if (type === LIST_TYPE.UNICAST) this.#unicast = list;
    else if (type === LIST_TYPE.MULTICAST) this.#multicast = list;
    else this.#vlans = list;
  }

  #setRoceAddress(call: CommandCall): void {
    const index = setRoceAddressIn.get(call.input, 'roce_address_index');
    if (index >= ROCE_ADDRESS_TABLE_SIZE) throw new CommandError(STATUS.BAD_INDEX, `there is no RoCE address ${index}`);
    const entry = setRoceAddressIn.part(call.input, 'roce_address');
    this.#roceAddresses.set(index, bytesOf(entry).slice());
    const gid = bytesOf(roceAddrLayout.part(entry, 'source_l3_address')).slice();
    if (gid.every((byte) => byte === 0)) {
      this.#gids.delete(index);
      return;
    }
    const mac = roceAddrLayout.get(entry, 'source_mac_47_32') * 2 ** 32 + roceAddrLayout.get(entry, 'source_mac_31_0');
    const isVersion2 = roceAddrLayout.get(entry, 'roce_version') === ROCE_VERSION_2;
    const isIpv4 = isVersion2 && roceAddrLayout.get(entry, 'roce_l3_type') === ROCE_L3_IPV4;
    this.#gids.set(index, { gid, mac, isVersion2, isIpv4 });
    this.#port.log.debug('RoCE address', { index, gid: Buffer.from(gid).toString('hex'), isVersion2 });
  }

  #describeHca(view: DataView): void {
    hcaVportContext.fill(view, {
      vport_state: this.isUp ? IB_PORT.ACTIVE : IB_PORT.DOWN,
      port_state: this.isUp ? IB_PORT.ACTIVE : IB_PORT.DOWN,
      port_physical_state: this.isUp ? IB_PORT.PHYSICAL_LINK_UP : IB_PORT.PHYSICAL_POLLING,
      cap_mask1: CM_SUPPORTED,
      lid: this.#profile.lid,
      sm_lid: 1,
      subnet_timeout: 18,
      qkey_violation_counter: this.#qkeyViolations & 0xffff,
    });
    for (const field of ['node_guid', 'port_guid', 'system_image_guid'] as const) {
      hcaVportContext.set64(view, field, this.#profile.guid);
    }
  }

  #queryGids(call: CommandCall): void {
    const index = queryHcaVportGidIn.get(call.input, 'gid_index');
    const start = queryHcaVportGidOut.byteOf('gid');
    const wanted = index === ALL_ENTRIES ? IB_GIDS : 1;
    const first = index === ALL_ENTRIES ? 0 : index;
    if (first >= IB_GIDS) throw new CommandError(STATUS.BAD_INDEX, `there is no GID ${first}`);
    queryHcaVportGidOut.set(call.output, 'gids_num', wanted);
    for (let count = 0; count < wanted; count++) {
      const gid = this.#gids.get(first + count)?.gid;
      if (gid !== undefined) bytesOf(call.output).set(gid, start + count * GID_BYTES);
    }
  }
}

const PKEY_START = 0x10;

/** Only the default partition exists. */
function queryPkeys(call: CommandCall): void {
  const index = queryHcaVportPkeyIn.get(call.input, 'pkey_index');
  if (index !== ALL_ENTRIES && index >= PKEYS) throw new CommandError(STATUS.BAD_INDEX, `there is no P_Key ${index}`);
  if (index === 0 || index === ALL_ENTRIES) call.output.setUint32(PKEY_START, DEFAULT_PKEY);
}

const LINK_LOCAL_PREFIX = 0xfe80;

/** fe80::/64 and the port's GUID (IB volume 1 §4.1.1). */
function linkLocalGid({ guid, mac }: Profile): GidEntry {
  const gid = new Uint8Array(GID_BYTES);
  const view = new DataView(gid.buffer);
  view.setUint16(0, LINK_LOCAL_PREFIX);
  view.setBigUint64(8, guid);
  return { gid, mac, isVersion2: false, isIpv4: false };
}

function getMac(view: DataView, offset: number): number {
  const high = macAddressLayout.get(view, 'mac_addr_47_32', offset);
  return high * 2 ** 32 + macAddressLayout.get(view, 'mac_addr_31_0', offset);
}

function setMac(view: DataView, offset: number, mac: number): void {
  macAddressLayout.set(view, 'mac_addr_47_32', Math.floor(mac / 2 ** 32), offset);
  macAddressLayout.set(view, 'mac_addr_31_0', mac % 2 ** 32, offset);
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}
