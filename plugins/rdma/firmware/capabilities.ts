/**
 * Capability pages: what the driver asks before it does anything, and by which it decides what to do at all. What is
 * not named here is zero, which switches the feature off (mlx5.md §4.5 lists what stays off on purpose).
 */

import {
  atomicCaps,
  cmdHcaCap,
  deviceMemCap,
  flowTableNicCap,
  flowTablePropLayout,
  odpCap,
  odpPerTransportServiceCap,
  odpSchemeCap,
  perProtocolNetworkingOffloadCaps,
  roceCap,
} from '../layouts/capabilities.js';
import { bytesOf, type Layout, subview } from '../layouts/layout.js';
import { DEVICE_MEMORY_BYTES, LOG_UNIT_BYTES, MAX_ALLOCATION_BYTES } from '../memory/device-memory.js';
import type { Profile } from '../port/profile.js';
import { type CommandCall, CommandError, type CommandTable, STATUS } from './command.js';
import { DEVICE_FREQUENCY_KHZ } from './device-clock.js';

const PAGE_BYTES = 4096;
/** query_hca_cap_out and set_hca_cap_in: the page starts here. */
const PAGE_START = 0x10;

/** op_mod >> 1 (include/linux/mlx5/device.h `enum mlx5_cap_type`). */
const CAP_TYPE = {
  GENERAL: 0,
  ETHERNET_OFFLOADS: 1,
  ODP: 2,
  ATOMIC: 3,
  ROCE: 4,
  FLOW_TABLE: 7,
  DEVICE_MEMORY: 0xf,
} as const;

/** Limits that the tables of objects keep to. */
export const LIMITS = {
  logQueuePairs: 14,
  logCompletionQueues: 14,
  logMemoryKeys: 20,
  logProtectionDomains: 16,
  logSharedReceiveQueues: 12,
  logMulticastGroups: 10,
  multicastMembers: 240,
  counterSets: 255,
} as const;

/** Without these the stock drivers do not start, or lack what this adapter offers (mlx5.md §4.4). */
const general: Values<typeof cmdHcaCap> = {
  num_ports: 1,
  native_port_num: 1,
  log_max_eq: 6,
  log_max_eq_sz: 22,
  log_max_qp: LIMITS.logQueuePairs,
  log_max_qp_sz: 15,
  log_max_srq: LIMITS.logSharedReceiveQueues,
  log_max_srq_sz: 15,
  log_max_cq: LIMITS.logCompletionQueues,
  log_max_cq_sz: 22,
  log_max_mkey: LIMITS.logMemoryKeys,
  log_max_pd: LIMITS.logProtectionDomains,
  log_max_xrcd: 10,
  log_max_transport_domain: 10,
  log_max_rmp: 8,
  log_max_mrw_sz: 63,
  log_max_klm_list_size: 16,
  log_max_msg: 30,
  log_max_ra_req_qp: 4,
  log_max_ra_res_qp: 4,
  max_wqe_sz_sq: 1024,
  max_wqe_sz_rq: 512,
  max_indirection: 4,
  max_sgl_for_optimized_performance: 30,
  max_qp_mcg: LIMITS.multicastMembers,
  log_max_mcg: LIMITS.logMulticastGroups,
  xrc: 1,
  atomic: 1,
  pg: 1,
  imaicl: 1,
  umr_fence: 2,
  umr_extended_translation_offset: 1,
  null_mkey: 1,
  fixed_buffer_size: 1,
  cq_resize: 1,
  cq_oi: 1,
  cq_moderation: 1,
  cqe_version: 1,
  compact_address_vector: 1,
  basic_cyclic_rcv_wqe: 1,
  local_ca_ack_delay: 16,
  log_pg_sz: 12,
  uar_sz: 4,
  num_of_uars_per_page: 1,
  // The kernel computes the places of doorbells from it; BlueFlame itself stays off (bf).
  log_bf_reg_size: 9,
  page_request_disable: 1,
  device_memory: 1,
  block_lb_mc: 1,
  max_qp_cnt: LIMITS.counterSets,
  out_of_seq_cnt: 1,
  retransmission_q_counters: 1,
  enhanced_error_q_counters: 1,
  device_frequency_khz: DEVICE_FREQUENCY_KHZ,
};

const infiniband: Values<typeof cmdHcaCap> = {
  port_type: 0,
  // The adapter itself answers for the port; no subnet manager, no directed-route MADs.
  ib_virt: 1,
  gid_table_size: 1,
  pkey_table_size: 0,
};

const ethernet: Values<typeof cmdHcaCap> = {
  port_type: 1,
  // 8 << 3 entries.
  gid_table_size: 3,
  pkey_table_size: 0,
  roce: 1,
  eth_net_offloads: 1,
  nic_flow_table: 1,
  log_max_tir: 10,
  log_max_tis: 10,
  log_max_rq: 10,
  log_max_sq: 10,
  log_max_rqt: 8,
  log_max_rqt_size: 8,
  log_max_wq_sz: 15,
  log_max_stride_sz_rq: 11,
  log_min_stride_sz_rq: 4,
  log_max_stride_sz_sq: 6,
  log_min_stride_sz_sq: 6,
  log_max_current_uc_list: 7,
  log_max_current_mc_list: 7,
  log_max_vlan_list: 7,
  log_max_tis_per_sq: 4,
  max_tc: 1,
};

type Values<L> = L extends Layout<infer Names> ? Readonly<Partial<Record<Names, number>>> : never;

/** Every operation of a transport that may meet a page fault. */
const ALL_ODP = { send: 1, receive: 1, write: 1, read: 1, atomic: 1, srq_receive: 1 };

/** Entries of the RoCE address table (roce_cap). */
export const ROCE_ADDRESS_TABLE_SIZE = 64;
export const ROCE_UDP_PORT = 4791;

function createPages(profile: Profile, memoryOffset: number): Map<number, DataView> {
  const pages = new Map<number, DataView>();
  const page = (type: number): DataView => {
    const view = new DataView(new ArrayBuffer(PAGE_BYTES));
    pages.set(type, view);
    return view;
  };
  const generalPage = page(CAP_TYPE.GENERAL);
  cmdHcaCap.fill(generalPage, general);
  cmdHcaCap.fill(generalPage, profile.link === 'ib' ? infiniband : ethernet);
  atomicCaps.fill(page(CAP_TYPE.ATOMIC), {
    supported_atomic_req_8B_endianness_mode_1: 1,
    // Compare-and-swap and fetch-and-add, 8 bytes.
    atomic_operations: 3,
    atomic_size_qp: 8,
    atomic_size_dc: 8,
  });
  fillOdp(page(CAP_TYPE.ODP));
  fillDeviceMemory(page(CAP_TYPE.DEVICE_MEMORY), memoryOffset);
  if (profile.link === 'roce') fillEthernetPages(page);
  return pages;
}

/** Faults described by key and address ("memory scheme"): the driver picks it when it sees page_prefetch. */
function fillOdp(view: DataView): void {
  odpCap.set(view, 'mem_page_fault', 1);
  const scheme = odpCap.byteOf('memory_page_fault_scheme_cap');
  odpSchemeCap.set(view, 'page_prefetch', 1, scheme);
  odpPerTransportServiceCap.fill(view, ALL_ODP, scheme + odpSchemeCap.byteOf('rc_odp_caps'));
  odpPerTransportServiceCap.fill(view, { send: 1, srq_receive: 1 }, scheme + odpSchemeCap.byteOf('ud_odp_caps'));
  odpPerTransportServiceCap.fill(view, ALL_ODP, scheme + odpSchemeCap.byteOf('xrc_odp_caps'));
}

function fillDeviceMemory(view: DataView, memoryOffset: number): void {
  deviceMemCap.fill(view, {
    memic: 1,
    log_min_memic_alloc_size: LOG_UNIT_BYTES,
    memic_bar_size: DEVICE_MEMORY_BYTES,
    max_memic_size: MAX_ALLOCATION_BYTES,
  });
  deviceMemCap.set64(view, 'memic_bar_start_addr', BigInt(memoryOffset));
}

function fillEthernetPages(page: (type: number) => DataView): void {
  perProtocolNetworkingOffloadCaps.fill(page(CAP_TYPE.ETHERNET_OFFLOADS), {
    csum_cap: 1,
    vlan_cap: 1,
    max_lso_cap: 16,
    rss_ind_tbl_cap: 8,
    self_lb_en_modifiable: 1,
  });
  roceCap.fill(page(CAP_TYPE.ROCE), {
    roce_apm: 1,
    // IPv4 and IPv6.
    l3_type: 6,
    // Versions 1 and 2.
    roce_version: 5,
    r_roce_dest_udp_port: ROCE_UDP_PORT,
    r_roce_max_src_udp_port: 0xffff,
    r_roce_min_src_udp_port: 0xc000,
    roce_address_table_size: ROCE_ADDRESS_TABLE_SIZE,
  });
  const receive = flowTableNicCap.byteOf('flow_table_properties_nic_receive');
  flowTablePropLayout.fill(
    page(CAP_TYPE.FLOW_TABLE),
    {
      ft_support: 1,
      flow_counter: 1,
      flow_modify_en: 1,
      modify_root: 1,
      identified_miss_table_mode: 1,
      flow_table_modify: 1,
      log_max_ft_size: 16,
      max_ft_level: 64,
      log_max_ft_num: 16,
      log_max_destination: 16,
      log_max_flow: 16,
    },
    receive,
  );
}

/** The pages as queries see them; current and maximum values are the same. */
export class Capabilities {
  readonly #pages: Map<number, DataView>;

  /** `memoryOffset`: where the adapter's own memory starts in BAR 0. */
  constructor(profile: Profile, memoryOffset: number) {
    this.#pages = createPages(profile, memoryOffset);
  }

  get commands(): CommandTable {
    return {
      QUERY_HCA_CAP: (call) => {
        bytesOf(subview(call.output, PAGE_START, PAGE_BYTES)).set(bytesOf(this.#page(call)));
      },
      SET_HCA_CAP: (call) => this.#set(call),
    };
  }

  #page(call: CommandCall): DataView {
    const type = call.opMod >>> 1;
    const page = this.#pages.get(type);
    if (page === undefined) throw new CommandError(STATUS.BAD_PARAMETER, `there is no capability page of type ${type}`);
    return page;
  }

  /**
   * The driver may choose the size of the partition key table and the byte order of atomics; it writes the other fields
   * as it read them, or as zero (atomics), so they stay.
   */
  #set(call: CommandCall): void {
    const page = this.#page(call);
    const given = subview(call.input, PAGE_START, PAGE_BYTES);
    const type = call.opMod >>> 1;
    if (type === CAP_TYPE.GENERAL) cmdHcaCap.set(page, 'pkey_table_size', cmdHcaCap.get(given, 'pkey_table_size'));
    if (type === CAP_TYPE.ATOMIC) {
      const mode = atomicCaps.get(given, 'atomic_req_8B_endianness_mode');
      atomicCaps.set(page, 'atomic_req_8B_endianness_mode', mode);
    }
  }
}
