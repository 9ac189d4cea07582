/** Completion queue entries, as the adapter fills them in. Source: include/linux/mlx5/device.h `struct mlx5_cqe64`. */

export const CQE = {
  BYTES: 64,
  RSS_HASH_RESULT: 12,
  RSS_HASH_TYPE: 16,
  CHECKSUM: 20,
  SLID: 22,
  FLAGS_RQPN: 24,
  SRQN_USER_INDEX: 32,
  IMM_INVALIDATE_PKEY: 36,
  BYTE_COUNT: 44,
  TIMESTAMP: 48,
  /** Error entries: `struct mlx5_err_cqe`. */
  SYNDROME: 55,
  OPCODE_QPN: 56,
  WQE_COUNTER: 60,
  OP_OWN: 63,
} as const;

/** Bits 7:4 of the last byte (device.h `MLX5_CQE_*`). */
export const CQE_OPCODE = {
  REQUESTER: 0,
  RESPONDER_WRITE_IMM: 1,
  RESPONDER_SEND: 2,
  RESPONDER_SEND_IMM: 3,
  RESPONDER_SEND_INVALIDATE: 4,
  RESIZE: 5,
  REQUESTER_ERROR: 13,
  RESPONDER_ERROR: 14,
} as const;

/** Error syndromes (include/linux/mlx5/cq.h `MLX5_CQE_SYNDROME_*`). */
export const SYNDROME = {
  LOCAL_LENGTH: 0x01,
  LOCAL_QP_OPERATION: 0x02,
  LOCAL_PROTECTION: 0x04,
  FLUSHED: 0x05,
  MW_BIND: 0x06,
  REMOTE_INVALID_REQUEST: 0x12,
  REMOTE_ACCESS: 0x13,
  REMOTE_OPERATION: 0x14,
  TRANSPORT_RETRIES: 0x15,
  RNR_RETRIES: 0x16,
} as const;
export type Syndrome = (typeof SYNDROME)[keyof typeof SYNDROME];

const SOLICITED_BIT = 2;

/** Which work an entry completes. */
interface CompletedWork {
  readonly userIndex: number;
  /** Number of the queue (pair), and for sends the opcode of the work request above it. */
  readonly queue: number;
  readonly sendOpcode?: number;
  readonly counter: number;
}

/** An entry that still lacks what came of the work. */
export function completionEntry({ userIndex, queue, sendOpcode = 0, counter }: CompletedWork): DataView {
  const entry = new DataView(new ArrayBuffer(CQE.BYTES));
  entry.setUint32(CQE.SRQN_USER_INDEX, userIndex);
  entry.setUint32(CQE.OPCODE_QPN, ((sendOpcode << 24) | queue) >>> 0);
  entry.setUint16(CQE.WQE_COUNTER, counter);
  return entry;
}

/** Says how the work ended well. The owner bit is the queue's. */
export function setOutcome(entry: DataView, opcode: number, solicited: boolean): void {
  entry.setUint8(CQE.OP_OWN, (opcode << 4) | (solicited ? SOLICITED_BIT : 0));
}

export function setError(entry: DataView, side: 'requester' | 'responder', syndrome: Syndrome): void {
  entry.setUint8(CQE.SYNDROME, syndrome);
  setOutcome(entry, side === 'requester' ? CQE_OPCODE.REQUESTER_ERROR : CQE_OPCODE.RESPONDER_ERROR, false);
}
