/**
 * User memory registration: a work request that changes a key and its translation table. The driver's registrations,
 * its answers to page faults, memory windows and local invalidation are all of this kind.
 */

import { mkc } from '../layouts/contexts.js';
import { wqeUmrCtrlSeg } from '../layouts/entries.js';
import { bytesOf } from '../layouts/layout.js';
import { type MemoryKey, OCTOWORD_BYTES } from '../memory/memory-key.js';
import type { MemoryKeys } from '../memory/memory-keys.js';
import { SYNDROME } from '../queues/completion-entry.js';
import { SERVICE } from '../queues/queue-pair.js';
import type { SegmentReader } from '../queues/work-queue-entry.js';
import { RequestFailed, type Sending } from './sending.js';
import { gather, type MemoryAccess, TransferFailed, type Work } from './transfer.js';

/** include/linux/mlx5/device.h `MLX5_UMR_*`, first byte of the control segment. */
const FLAG = { TRANSLATION_OFFSET: 0x10, CHECK_NOT_FREE: 0x20, CHECK_FREE: 0x40, INLINE: 0x80 } as const;

/** include/linux/mlx5/device.h `MLX5_MKEY_MASK_*`: which bit of the mask covers which fields. */
const MASK_FIELDS: readonly (readonly [bit: number, field: keyof typeof mkc.fields])[] = [
  [1, 'log_page_size'],
  [7, 'pd'],
  [8, 'en_rinval'],
  [13, 'mkey_7_0'],
  [14, 'qpn'],
  [17, 'lr'],
  [18, 'lw'],
  [19, 'rr'],
  [20, 'rw'],
  [21, 'a'],
  [23, 'small_fence_on_rdma_read_response'],
  [25, 'relaxed_ordering_write'],
  [29, 'free'],
  [42, 'log_page_size'],
  [47, 'relaxed_ordering_read'],
];
const MASK_LENGTH = 1n << 0n;
const MASK_START = 1n << 6n;
const MASK_DOMAIN = 1n << 7n;

/** What a registration needs of its adapter. */
export interface UmrHost extends MemoryAccess {
  readonly memoryKeys: Pick<MemoryKeys, 'translate' | 'findIndex'>;
}

/** Executes one; nothing moves on the wire. Throws {@link RequestFailed}. */
export function* executeUmr(host: UmrHost, sending: Sending, reader: SegmentReader): Work<number> {
  const { entry } = sending;
  const { control, mkey } = reader.umr();
  const key = host.memoryKeys.findIndex(entry.immediate >>> 8);
  if (key === undefined) throw new RequestFailed(SYNDROME.MW_BIND, `there is no key 0x${entry.immediate.toString(16)}`);
  const flags = wqeUmrCtrlSeg.get(control, 'flags');
  const mask = wqeUmrCtrlSeg.get64(control, 'mkey_mask');
  requirePermission(sending, key, flags, mask);
  const table = yield* translations(host, sending, reader, control, flags);
  const offset = (flags & FLAG.TRANSLATION_OFFSET) === 0 ? 0 : translationOffset(control);
  if (table.length > 0 && !key.writeTable(offset, table)) {
    throw new RequestFailed(SYNDROME.MW_BIND, `${table.length} bytes of translations at ${offset} do not fit the key`);
  }
  applyMask(key, mkey, mask);
  return 0;
}

/** Queue pairs of processes change keys of their own protection domain only; the driver's registrar changes all. */
function requirePermission({ qp }: Sending, key: MemoryKey, flags: number, mask: bigint): void {
  const isRegistrar = qp.service === SERVICE.REG_UMR;
  const foreign = mkc.get(key.context, 'pd') !== qp.protectionDomain || (mask & MASK_DOMAIN) !== 0n;
  if (!isRegistrar && foreign) {
    throw new RequestFailed(SYNDROME.MW_BIND, 'the key belongs to another protection domain');
  }
  if (mkc.get(key.context, 'umr_en') === 0 && !isRegistrar) {
    throw new RequestFailed(SYNDROME.MW_BIND, 'the key does not take registrations by work request');
  }
  if ((flags & FLAG.CHECK_FREE) !== 0 && key.isFree) throw new RequestFailed(SYNDROME.MW_BIND, 'the key is free');
  if ((flags & FLAG.CHECK_NOT_FREE) !== 0 && !key.isFree) {
    throw new RequestFailed(SYNDROME.MW_BIND, 'the key is in use');
  }
}

function* translations(
  access: UmrHost,
  { qp, waiter }: Sending,
  reader: SegmentReader,
  control: DataView,
  flags: number,
): Work<Uint8Array> {
  const lengthBytes = wqeUmrCtrlSeg.get(control, 'xlt_octowords') * OCTOWORD_BYTES;
  if (lengthBytes === 0) return new Uint8Array(0);
  if ((flags & FLAG.INLINE) !== 0) {
    const rest = bytesOf(reader.rest());
    if (rest.length < lengthBytes) {
      throw new RequestFailed(SYNDROME.LOCAL_QP_OPERATION, 'inline translations are cut off');
    }
    return rest.slice(0, lengthBytes);
  }
  try {
    const source = { access, user: qp, pieces: reader.pieces(), right: 'local-read' } as const;
    return yield* gather(waiter, source, lengthBytes);
  } catch (error) {
    if (!(error instanceof TransferFailed)) throw error;
    throw new RequestFailed(SYNDROME.LOCAL_PROTECTION, error.message);
  }
}

/** 48 bits in two pieces, in units of 16 bytes. */
function translationOffset(control: DataView): number {
  const high = wqeUmrCtrlSeg.get(control, 'xlt_offset_47_16');
  return (high * 2 ** 16 + wqeUmrCtrlSeg.get(control, 'xlt_offset')) * OCTOWORD_BYTES;
}

function applyMask(key: MemoryKey, given: DataView, mask: bigint): void {
  if ((mask & MASK_LENGTH) !== 0n) {
    mkc.set64(key.context, 'len', mkc.get64(given, 'len'));
    mkc.set(key.context, 'length64', mkc.get(given, 'length64'));
  }
  if ((mask & MASK_START) !== 0n) mkc.set64(key.context, 'start_addr', mkc.get64(given, 'start_addr'));
  for (const [bit, field] of MASK_FIELDS) {
    if (((mask >> BigInt(bit)) & 1n) !== 0n) mkc.set(key.context, field, mkc.get(given, field));
  }
}
