/** Port registers behind ACCESS_REG. Source: include/linux/mlx5/mlx5_ifc.h, `struct mlx5_ifc_<name>_bits`. */
import { layout } from './layout.js';

export const ptysReg = layout('ptys_reg', 0x40, {
  an_disable_admin: [0x1, 1],
  an_disable_cap: [0x2, 1],
  local_port: [0x8, 8],
  plane_ind: [0x18, 4],
  proto_mask: [0x1d, 3],
  an_status: [0x20, 4],
  data_rate_oper: [0x30, 16],
  ext_eth_proto_capability: [0x40, 32],
  eth_proto_capability: [0x60, 32],
  ib_link_width_capability: [0x80, 16],
  ib_proto_capability: [0x90, 16],
  ext_eth_proto_admin: [0xa0, 32],
  eth_proto_admin: [0xc0, 32],
  ib_link_width_admin: [0xe0, 16],
  ib_proto_admin: [0xf0, 16],
  ext_eth_proto_oper: [0x100, 32],
  eth_proto_oper: [0x120, 32],
  ib_link_width_oper: [0x140, 16],
  ib_proto_oper: [0x150, 16],
  lane_rate_oper: [0x168, 20],
  connector_type: [0x17c, 4],
  eth_proto_lp_advertise: [0x180, 32],
});

export const pmtuReg = layout('pmtu_reg', 0x10, {
  local_port: [0x8, 8],
  max_mtu: [0x20, 16],
  admin_mtu: [0x40, 16],
  oper_mtu: [0x60, 16],
});

export const paosReg = layout('paos_reg', 0x10, {
  swid: [0x0, 8],
  local_port: [0x8, 8],
  admin_status: [0x14, 4],
  oper_status: [0x1c, 4],
  ase: [0x20, 1],
  ee: [0x21, 1],
  e: [0x3e, 2],
});

export const pvlcReg = layout('pvlc_reg', 0x10, {
  local_port: [0x8, 8],
  vl_hw_cap: [0x3c, 4],
  vl_admin: [0x5c, 4],
  vl_operational: [0x7c, 4],
});

export const ppcntReg = layout('ppcnt_reg', 0x100, {
  swid: [0x0, 8],
  local_port: [0x8, 8],
  pnat: [0x10, 2],
  grp: [0x1a, 6],
  clr: [0x20, 1],
  plane_ind: [0x34, 4],
  prio_tc: [0x3b, 5],
  counter_set: [0x40, 1984],
});

export const eth8023CntrsGrpDataLayout = layout('eth_802_3_cntrs_grp_data_layout', 0xf8, {
  a_frames_transmitted_ok_high: [0x0, 32],
  a_frames_transmitted_ok_low: [0x20, 32],
  a_frames_received_ok_high: [0x40, 32],
  a_frames_received_ok_low: [0x60, 32],
  a_frame_check_sequence_errors_high: [0x80, 32],
  a_frame_check_sequence_errors_low: [0xa0, 32],
  a_alignment_errors_high: [0xc0, 32],
  a_alignment_errors_low: [0xe0, 32],
  a_octets_transmitted_ok_high: [0x100, 32],
  a_octets_transmitted_ok_low: [0x120, 32],
  a_octets_received_ok_high: [0x140, 32],
  a_octets_received_ok_low: [0x160, 32],
  a_multicast_frames_xmitted_ok_high: [0x180, 32],
  a_multicast_frames_xmitted_ok_low: [0x1a0, 32],
  a_broadcast_frames_xmitted_ok_high: [0x1c0, 32],
  a_broadcast_frames_xmitted_ok_low: [0x1e0, 32],
  a_multicast_frames_received_ok_high: [0x200, 32],
  a_multicast_frames_received_ok_low: [0x220, 32],
  a_broadcast_frames_received_ok_high: [0x240, 32],
  a_broadcast_frames_received_ok_low: [0x260, 32],
  a_in_range_length_errors_high: [0x280, 32],
  a_in_range_length_errors_low: [0x2a0, 32],
  a_out_of_range_length_field_high: [0x2c0, 32],
  a_out_of_range_length_field_low: [0x2e0, 32],
  a_frame_too_long_errors_high: [0x300, 32],
  a_frame_too_long_errors_low: [0x320, 32],
  a_symbol_error_during_carrier_high: [0x340, 32],
  a_symbol_error_during_carrier_low: [0x360, 32],
  a_mac_control_frames_transmitted_high: [0x380, 32],
  a_mac_control_frames_transmitted_low: [0x3a0, 32],
  a_mac_control_frames_received_high: [0x3c0, 32],
  a_mac_control_frames_received_low: [0x3e0, 32],
  a_unsupported_opcodes_received_high: [0x400, 32],
  a_unsupported_opcodes_received_low: [0x420, 32],
  a_pause_mac_ctrl_frames_received_high: [0x440, 32],
  a_pause_mac_ctrl_frames_received_low: [0x460, 32],
  a_pause_mac_ctrl_frames_transmitted_high: [0x480, 32],
  a_pause_mac_ctrl_frames_transmitted_low: [0x4a0, 32],
});
