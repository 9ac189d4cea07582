/**
 * Inputs and outputs of commands. The header that all share (opcode, op_mod, status, syndrome) is in command.ts.
 * Source: include/linux/mlx5/mlx5_ifc.h, `struct mlx5_ifc_<name>_bits`.
 */
import { layout } from './layout.js';

export const queryIssiOut = layout('query_issi_out', 0x70, {
  current_issi: [0x50, 16],
  supported_issi_dw0: [0x360, 32],
});

export const queryPagesOut = layout('query_pages_out', 0x10, {
  function_id: [0x50, 16],
  num_pages: [0x60, 32],
});

export const managePagesIn = layout('manage_pages_in', 0x10, {
  function_id: [0x50, 16],
  input_num_entries: [0x60, 32],
  pas: [0x80, 0],
});

export const managePagesOut = layout('manage_pages_out', 0x10, {
  output_num_entries: [0x40, 32],
  pas: [0x80, 0],
});

export const querySpecialContextsOut = layout('query_special_contexts_out', 0x20, {
  dump_fill_mkey: [0x40, 32],
  resd_lkey: [0x60, 32],
  null_mkey: [0x80, 32],
  terminate_scatter_list_mkey: [0xa0, 32],
  repeated_mkey: [0xc0, 32],
});

export const createEqIn = layout('create_eq_in', 0x110, {
  eq_context_entry: [0x80, 512],
  event_bitmask: [0x2c0, 256],
  pas: [0x880, 0],
});

export const createEqOut = layout('create_eq_out', 0x10, {
  eq_number: [0x58, 8],
});

export const destroyEqIn = layout('destroy_eq_in', 0x10, {
  eq_number: [0x58, 8],
});

export const queryEqOut = layout('query_eq_out', 0x110, {
  eq_context_entry: [0x80, 512],
});

export const createCqIn = layout('create_cq_in', 0x110, {
  cq_context: [0x80, 512],
  pas: [0x880, 0],
});

export const modifyCqIn = layout('modify_cq_in', 0x110, {
  cqn: [0x48, 24],
  modify_field_select_resize_field_select: [0x60, 32],
  cq_context: [0x80, 512],
  pas: [0x880, 0],
});

export const queryCqOut = layout('query_cq_out', 0x110, {
  cq_context: [0x80, 512],
  pas: [0x880, 0],
});

export const createMkeyIn = layout('create_mkey_in', 0x110, {
  pg_access: [0x60, 1],
  mkey_umem_valid: [0x61, 1],
  memory_key_mkey_entry: [0x80, 512],
  translations_octword_actual_size: [0x300, 32],
  klm_pas_mtt: [0x880, 0],
});

export const queryMkeyOut = layout('query_mkey_out', 0x130, {
  memory_key_mkey_entry: [0x80, 512],
});

export const createQpIn = layout('create_qp_in', 0x110, {
  input_qpn: [0x48, 24],
  opt_param_mask: [0x80, 32],
  qpc: [0xc0, 1856],
  wq_umem_valid: [0x860, 1],
  pas: [0x880, 0],
});

export const rst2initQpIn = layout('rst2init_qp_in', 0x110, {
  qpn: [0x48, 24],
  opt_param_mask: [0x80, 32],
  qpc: [0xc0, 1856],
});

export const queryQpOut = layout('query_qp_out', 0x1d0, {
  opt_param_mask: [0x80, 32],
  qpc: [0xc0, 1856],
});

export const createRmpIn = layout('create_rmp_in', 0x110, {
  ctx: [0x100, 1920],
});

export const modifyRmpIn = layout('modify_rmp_in', 0x110, {
  rmp_state: [0x40, 4],
  rmpn: [0x48, 24],
  bitmask: [0x80, 64],
  ctx: [0x100, 1920],
});

export const queryRmpOut = layout('query_rmp_out', 0x110, {
  rmp_context: [0x100, 1920],
});

export const createXrcSrqIn = layout('create_xrc_srq_in', 0x110, {
  xrc_srq_context_entry: [0x80, 512],
  pas: [0x880, 0],
});

export const queryXrcSrqOut = layout('query_xrc_srq_out', 0x110, {
  xrc_srq_context_entry: [0x80, 512],
});

export const armXrcSrqIn = layout('arm_xrc_srq_in', 0x10, {
  op_mod: [0x30, 16],
  xrc_srqn: [0x48, 24],
  lwm: [0x70, 16],
});

export const attachToMcgIn = layout('attach_to_mcg_in', 0x20, {
  qpn: [0x48, 24],
  multicast_gid: [0x80, 128],
});

export const createSqIn = layout('create_sq_in', 0x110, {
  ctx: [0x100, 1920],
});

export const modifySqIn = layout('modify_sq_in', 0x110, {
  sq_state: [0x40, 4],
  sqn: [0x48, 24],
  ctx: [0x100, 1920],
});

export const querySqOut = layout('query_sq_out', 0x110, {
  sq_context: [0x100, 1920],
});

export const createRqIn = layout('create_rq_in', 0x110, {
  ctx: [0x100, 1920],
});

export const modifyRqIn = layout('modify_rq_in', 0x110, {
  rq_state: [0x40, 4],
  rqn: [0x48, 24],
  ctx: [0x100, 1920],
});

export const queryRqOut = layout('query_rq_out', 0x110, {
  rq_context: [0x100, 1920],
});

export const createTirIn = layout('create_tir_in', 0x110, {
  ctx: [0x100, 1920],
});

export const modifyTirIn = layout('modify_tir_in', 0x110, {
  tirn: [0x48, 24],
  bitmask: [0x80, 64],
  ctx: [0x100, 1920],
});

export const createRqtIn = layout('create_rqt_in', 0x110, {
  rqt_context: [0x100, 1920],
});

export const modifyRqtIn = layout('modify_rqt_in', 0x110, {
  rqtn: [0x48, 24],
  ctx: [0x100, 1920],
});

export const createFlowTableIn = layout('create_flow_table_in', 0x40, {
  table_type: [0x80, 8],
  flow_table_context: [0xc0, 320],
});

export const createFlowTableOut = layout('create_flow_table_out', 0x10, {
  table_id: [0x48, 24],
});

export const modifyFlowTableIn = layout('modify_flow_table_in', 0x40, {
  modify_field_select: [0x70, 16],
  table_type: [0x80, 8],
  table_id: [0xa8, 24],
  flow_table_context: [0xc0, 320],
});

export const destroyFlowTableIn = layout('destroy_flow_table_in', 0x40, {
  table_type: [0x80, 8],
  table_id: [0xa8, 24],
});

export const setFlowTableRootIn = layout('set_flow_table_root_in', 0x40, {
  table_type: [0x80, 8],
  table_id: [0xa8, 24],
});

export const createFlowGroupIn = layout('create_flow_group_in', 0x400, {
  table_type: [0x80, 8],
  table_id: [0xa8, 24],
  start_flow_index: [0xe0, 32],
  end_flow_index: [0x120, 32],
  match_criteria_enable: [0x1f8, 8],
  match_criteria: [0x200, 4096],
});

export const createFlowGroupOut = layout('create_flow_group_out', 0x10, {
  group_id: [0x48, 24],
});

export const destroyFlowGroupIn = layout('destroy_flow_group_in', 0x40, {
  table_type: [0x80, 8],
  table_id: [0xa8, 24],
  group_id: [0xc0, 32],
});

export const setFteIn = layout('set_fte_in', 0x340, {
  table_type: [0x80, 8],
  table_id: [0xa8, 24],
  modify_enable_mask: [0xd8, 8],
  flow_index: [0x100, 32],
  flow_context: [0x200, 6144],
});

export const deleteFteIn = layout('delete_fte_in', 0x40, {
  table_type: [0x80, 8],
  table_id: [0xa8, 24],
  flow_index: [0x100, 32],
});

export const allocFlowCounterOut = layout('alloc_flow_counter_out', 0x10, {
  flow_counter_id: [0x40, 32],
});

export const deallocFlowCounterIn = layout('dealloc_flow_counter_in', 0x10, {
  flow_counter_id: [0x40, 32],
});

export const queryFlowCounterIn = layout('query_flow_counter_in', 0x20, {
  clear: [0xc0, 1],
  num_of_counters: [0xd0, 16],
  flow_counter_id: [0xe0, 32],
});

export const queryFlowCounterOut = layout('query_flow_counter_out', 0x10, {
  flow_statistics: [0x80, 0],
});

export const queryNicVportContextIn = layout('query_nic_vport_context_in', 0x10, {
  other_vport: [0x40, 1],
  allowed_list_type: [0x65, 3],
});

export const queryNicVportContextOut = layout('query_nic_vport_context_out', 0x110, {
  nic_vport_context: [0x80, 2048],
});

export const modifyNicVportContextIn = layout('modify_nic_vport_context_in', 0x200, {
  field_select: [0x60, 32],
  nic_vport_context: [0x800, 2048],
});

export const queryHcaVportContextOut = layout('query_hca_vport_context_out', 0x210, {
  hca_vport_context: [0x80, 4096],
});

export const queryHcaVportGidIn = layout('query_hca_vport_gid_in', 0x10, {
  gid_index: [0x70, 16],
});

export const queryHcaVportGidOut = layout('query_hca_vport_gid_out', 0x10, {
  gids_num: [0x60, 16],
  gid: [0x80, 0],
});

export const queryHcaVportPkeyIn = layout('query_hca_vport_pkey_in', 0x10, {
  pkey_index: [0x70, 16],
});

export const setRoceAddressIn = layout('set_roce_address_in', 0x30, {
  roce_address_index: [0x40, 16],
  roce_address: [0x80, 256],
});

export const queryRoceAddressIn = layout('query_roce_address_in', 0x10, {
  roce_address_index: [0x40, 16],
});

export const queryRoceAddressOut = layout('query_roce_address_out', 0x30, {
  roce_address: [0x80, 256],
});

export const queryVportStateOut = layout('query_vport_state_out', 0x10, {
  max_tx_speed: [0x60, 16],
  admin_state: [0x78, 4],
  state: [0x7c, 4],
});

export const modifyVportStateIn = layout('modify_vport_state_in', 0x10, {
  admin_state: [0x78, 4],
});

export const queryVportCounterIn = layout('query_vport_counter_in', 0x20, {
  clear: [0xc0, 1],
});

export const allocQCounterOut = layout('alloc_q_counter_out', 0x10, {
  counter_set_id: [0x58, 8],
});

export const deallocQCounterIn = layout('dealloc_q_counter_in', 0x10, {
  counter_set_id: [0x58, 8],
});

export const queryQCounterIn = layout('query_q_counter_in', 0x20, {
  clear: [0xc0, 1],
  aggregate: [0xc1, 1],
  counter_set_id: [0xf8, 8],
});

export const queryVportCounterOut = layout('query_vport_counter_out', 0x210, {
  status: [0x0, 8],
  syndrome: [0x20, 32],
  received_errors: [0x80, 128],
  transmit_errors: [0x100, 128],
  received_ib_unicast: [0x180, 128],
  transmitted_ib_unicast: [0x200, 128],
  received_ib_multicast: [0x280, 128],
  transmitted_ib_multicast: [0x300, 128],
  received_eth_broadcast: [0x380, 128],
  transmitted_eth_broadcast: [0x400, 128],
  received_eth_unicast: [0x480, 128],
  transmitted_eth_unicast: [0x500, 128],
  received_eth_multicast: [0x580, 128],
  transmitted_eth_multicast: [0x600, 128],
  local_loopback: [0x680, 128],
});

export const queryQCounterOut = layout('query_q_counter_out', 0x100, {
  status: [0x0, 8],
  syndrome: [0x20, 32],
  rx_write_requests: [0x80, 32],
  rx_read_requests: [0xc0, 32],
  rx_atomic_requests: [0x100, 32],
  rx_dct_connect: [0x140, 32],
  out_of_buffer: [0x180, 32],
  out_of_sequence: [0x1c0, 32],
  duplicate_request: [0x200, 32],
  rnr_nak_retry_err: [0x240, 32],
  packet_seq_err: [0x280, 32],
  implied_nak_seq_err: [0x2c0, 32],
  local_ack_timeout_err: [0x300, 32],
  req_rnr_retries_exceeded: [0x380, 32],
  resp_local_length_error: [0x3c0, 32],
  req_local_length_error: [0x3e0, 32],
  resp_local_qp_error: [0x400, 32],
  local_operation_error: [0x420, 32],
  resp_local_protection: [0x440, 32],
  req_local_protection: [0x460, 32],
  resp_cqe_error: [0x480, 32],
  req_cqe_error: [0x4a0, 32],
  req_mw_binding: [0x4c0, 32],
  req_bad_response: [0x4e0, 32],
  req_remote_invalid_request: [0x500, 32],
  resp_remote_invalid_request: [0x520, 32],
  req_remote_access_errors: [0x540, 32],
  resp_remote_access_errors: [0x560, 32],
  req_remote_operation_errors: [0x580, 32],
  req_transport_retries_exceeded: [0x5a0, 32],
  cq_overflow: [0x5c0, 32],
  resp_cqe_flush_error: [0x5e0, 32],
  req_cqe_flush_error: [0x600, 32],
  roce_adp_retrans: [0x640, 32],
  roce_adp_retrans_to: [0x660, 32],
  roce_slow_restart: [0x680, 32],
  roce_slow_restart_cnps: [0x6a0, 32],
  roce_slow_restart_trans: [0x6c0, 32],
});

export const accessRegisterIn = layout('access_register_in', 0x10, {
  register_id: [0x50, 16],
  argument: [0x60, 32],
  register_data: [0x80, 0],
});

export const madIfcIn = layout('mad_ifc_in', 0x110, {
  remote_lid: [0x40, 16],
  port: [0x58, 8],
  mad: [0x80, 2048],
});

export const queryAdapterOut = layout('query_adapter_out', 0x110, {
  query_adapter_struct: [0x80, 2048],
});

export const memPageFaultInfo = layout('mem_page_fault_info', 0x8, {
  error: [0x0, 1],
  fault_token_47_32: [0x10, 16],
  fault_token_31_0: [0x20, 32],
});

export const allocMemicIn = layout('alloc_memic_in', 0x20, {
  log_memic_addr_alignment: [0x78, 8],
  range_start_addr: [0x80, 64],
  range_size: [0xc0, 32],
  memic_size: [0xe0, 32],
});

export const allocMemicOut = layout('alloc_memic_out', 0x10, {
  memic_start_addr: [0x40, 64],
});

export const deallocMemicIn = layout('dealloc_memic_in', 0x20, {
  memic_start_addr: [0x80, 64],
  memic_size: [0xc0, 32],
});
