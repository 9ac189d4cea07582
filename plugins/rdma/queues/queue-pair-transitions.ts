/**
 * State changes of a queue pair that commands ask for: which are legal, and what each takes from the context it brings.
 */
import { CommandError, STATUS } from '../firmware/command.js';
import { ads, qpc } from '../layouts/contexts.js';
import { bytesOf, subview } from '../layouts/layout.js';
import { QP_STATE, type QueuePair } from './queue-pair.js';

type QpcField = keyof typeof qpc.fields;
type AdsField = keyof typeof ads.fields;

interface Transition {
  readonly from: readonly number[];
  readonly to: number;
  readonly fields: readonly QpcField[];
  readonly path: readonly AdsField[] | 'all';
}

/** What each command takes from the context it brings (mlx5.md §5.4); the rest stays as it was. */
export const TRANSITIONS = {
  RST2INIT_QP: {
    from: [QP_STATE.RESET],
    to: QP_STATE.INIT,
    fields: ['pm_state', 'pd', 'rre', 'rwe', 'rae', 'atomic_mode', 'q_key', 'counter_set_id', 'min_rnr_nak'],
    path: ['pkey_index', 'vhca_port_num'],
  },
  INIT2INIT_QP: { from: [QP_STATE.INIT], to: QP_STATE.INIT, fields: [], path: [] },
  INIT2RTR_QP: {
    from: [QP_STATE.INIT],
    to: QP_STATE.RTR,
    fields: ['mtu', 'log_msg_max', 'remote_qpn', 'next_rcv_psn', 'log_rra_max', 'min_rnr_nak'],
    path: 'all',
  },
  RTR2RTS_QP: {
    from: [QP_STATE.RTR],
    to: QP_STATE.RTS,
    fields: ['next_send_psn', 'log_sra_max', 'retry_count', 'rnr_retry', 'log_ack_req_freq'],
    path: ['ack_timeout'],
  },
  RTS2RTS_QP: { from: [QP_STATE.RTS], to: QP_STATE.RTS, fields: [], path: [] },
  SQERR2RTS_QP: { from: [QP_STATE.SQ_ERROR], to: QP_STATE.RTS, fields: [], path: [] },
} as const satisfies Record<string, Transition>;

/** opt_param_mask (include/linux/mlx5/qp.h `MLX5_QP_OPTPAR_*`): fields that a transition may carry in addition. */
const OPTIONAL_FIELDS: readonly (readonly [bit: number, fields: readonly QpcField[]])[] = [
  [1, ['rre']],
  [2, ['rae', 'atomic_mode']],
  [3, ['rwe']],
  [5, ['q_key']],
  [6, ['min_rnr_nak']],
  [8, ['log_sra_max']],
  [9, ['log_rra_max']],
  [10, ['pm_state']],
  [12, ['retry_count']],
  [13, ['rnr_retry']],
  [18, ['srqn_rmpn_xrqn']],
  [19, ['cqn_rcv']],
  [25, ['counter_set_id']],
];
const OPTIONAL_PATH: readonly (readonly [bit: number, fields: readonly AdsField[]])[] = [
  [4, ['pkey_index']],
  [14, ['ack_timeout']],
  [16, ['vhca_port_num']],
];
const OPTIONAL_WHOLE_PATH = 7;

/** What the driver may fill in late, at any transition; zero means that it did not (qp.c `__mlx5_ib_modify_qp`). */
const FILLED_LATE: readonly QpcField[] = ['cqn_snd', 'cqn_rcv', 'rlky'];

/** Applies a transition. Throws {@link CommandError} from a state where it is not legal. */
export function applyTransition(
  qp: QueuePair,
  name: keyof typeof TRANSITIONS,
  given: DataView,
  optional: number,
): void {
  const transition: Transition = TRANSITIONS[name];
  if (!transition.from.includes(qp.state)) {
    throw new CommandError(STATUS.BAD_QP_STATE, `${name} of queue pair ${qp.number} in state ${qp.state}`);
  }
  const givenPath = subview(given, qpc.byteOf('primary_address_path'), ads.sizeBytes);
  for (const field of transition.fields) copyContextField(qp.context, given, field);
  for (const field of FILLED_LATE) if (qpc.get(given, field) !== 0) copyContextField(qp.context, given, field);
  if (transition.path === 'all' || (optional >>> OPTIONAL_WHOLE_PATH) & 1) copyPath(qp, givenPath);
  if (transition.path !== 'all') for (const field of transition.path) copyPathField(qp.path, givenPath, field);
  for (const [bit, fields] of OPTIONAL_FIELDS) {
    if ((optional >>> bit) & 1) for (const field of fields) copyContextField(qp.context, given, field);
  }
  for (const [bit, fields] of OPTIONAL_PATH) {
    if ((optional >>> bit) & 1) for (const field of fields) copyPathField(qp.path, givenPath, field);
  }
  qp.setState(transition.to);
}

/** The whole path but for the acknowledge timeout, which a command brings by itself. */
function copyPath(qp: QueuePair, given: DataView): void {
  const timeout = ads.get(qp.path, 'ack_timeout');
  bytesOf(qp.path).set(bytesOf(given));
  ads.set(qp.path, 'ack_timeout', timeout);
}

function copyContextField(target: DataView, source: DataView, field: QpcField): void {
  qpc.set(target, field, qpc.get(source, field));
}

function copyPathField(target: DataView, source: DataView, field: AdsField): void {
  ads.set(target, field, ads.get(source, field));
}
