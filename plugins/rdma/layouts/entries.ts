/**
 * Entries of work queues and event queues. They are structures of include/linux/mlx5/device.h and qp.h, of bytes
 * and words, not of mlx5_ifc.h; named as there.
 */
import { layout } from './layout.js';

export const wqeCtrlSeg = layout('mlx5_wqe_ctrl_seg', 16, {
  opcode: [0x18, 8],
  ds: [0x3a, 6],
  /** `MLX5_WQE_CTRL_CQ_UPDATE`, bits 3:2 of fm_ce_se. */
  ce: [0x5c, 2],
  /** `MLX5_WQE_CTRL_SOLICITED`. */
  se: [0x5e, 1],
  imm: [0x60, 32],
});

export const wqeDataSeg = layout('mlx5_wqe_data_seg', 16, {
  /** `MLX5_INLINE_SEG`: the bytes follow, and their number has 10 bits (`struct mlx5_wqe_inline_seg`). */
  inline: [0, 1],
  byte_count: [1, 31],
  inline_byte_count: [22, 10],
  lkey: [0x20, 32],
  addr: [0x40, 64],
});

export const wqeRaddrSeg = layout('mlx5_wqe_raddr_seg', 16, {
  raddr: [0, 64],
  rkey: [0x40, 32],
});

export const wqeAtomicSeg = layout('mlx5_wqe_atomic_seg', 16, {
  swap_add: [0, 64],
  compare: [0x40, 64],
});

export const wqeXrcSeg = layout('mlx5_wqe_xrc_seg', 16, {
  xrc_srqn: [8, 24],
});

export const wqeSrqNextSeg = layout('mlx5_wqe_srq_next_seg', 16, {
  next_wqe_index: [0x10, 16],
});

export const wqeAv = layout('mlx5_av', 48, {
  qkey: [0, 32],
  /** Of dqp_dct: the address vector has its full size (`MLX5_EXTENDED_UD_AV`). */
  extended: [0x40, 1],
  dqpn: [0x48, 24],
  sl: [0x64, 4],
  /** On Ethernet the UDP source port. */
  rlid: [0x70, 16],
  rmac_47_32: [0xa0, 16],
  rmac_31_16: [0xb0, 16],
  rmac_15_0: [0xc0, 16],
  tclass: [0xd0, 8],
  hop_limit: [0xd8, 8],
  grh: [0xe1, 1],
  sgid_index: [0xe4, 8],
  flow_label: [0xec, 20],
  rgid: [0x100, 128],
});

export const wqeUmrCtrlSeg = layout('mlx5_wqe_umr_ctrl_seg', 48, {
  flags: [0, 8],
  xlt_octowords: [0x20, 16],
  xlt_offset: [0x30, 16],
  mkey_mask: [0x40, 64],
  xlt_offset_47_16: [0x80, 32],
});

/** Bytes 32 to 59 of an event queue entry are the event's own. */
const EVENT_DATA_BYTES = 28;

export const eqeComp = layout('mlx5_eqe_comp', EVENT_DATA_BYTES, {
  cqn: [0xc0, 32],
});

export const eqeQpSrq = layout('mlx5_eqe_qp_srq', EVENT_DATA_BYTES, {
  qp_srq_n: [0xc0, 32],
});

export const eqeCqErr = layout('mlx5_eqe_cq_err', EVENT_DATA_BYTES, {
  cqn: [0, 32],
  syndrome: [0x58, 8],
});

export const eqeCmd = layout('mlx5_eqe_cmd', EVENT_DATA_BYTES, {
  vector: [0, 32],
});

export const eqePortState = layout('mlx5_eqe_port_state', EVENT_DATA_BYTES, {
  port: [0x40, 4],
});

/** With the memory scheme: `struct mlx5_eqe_page_fault` `memory`. */
export const eqePageFault = layout('mlx5_eqe_page_fault', EVENT_DATA_BYTES, {
  flags: [0, 8],
  token31_0: [0x40, 32],
  demand_fault_pages: [0x60, 20],
  mkey: [0x80, 32],
  va: [0xa0, 64],
});
