/** XGMI hives: which GPUs form one, and where a GPU is in its own. */
import type { Mmio } from '../bus/mmio.js';
import type { FrameBuffer, Hive } from './frame-buffer.js';

/** PF_LFB_REGION has four bits (gfxhub_v1_1.c). */
const MAX_NODES = 16;

/**
 * The hive of the functions `names`, joined by `+`, seen from the GPU `own`. Throws an Error that says what is wrong.
 */
export function parseHive(names: string, own: string): Hive {
  const nodes = names.split('+');
  const node = nodes.indexOf(own);
  const wrong = (why: string) => new Error(`gpu: hive=${names}: ${why}`);
  if (node < 0) throw wrong(`this GPU, ${own}, is not in it`);
  if (new Set(nodes).size !== nodes.length) throw wrong('a name is there twice');
  if (nodes.length < 2 || nodes.length > MAX_NODES) throw wrong(`a hive has 2 to ${MAX_NODES} nodes`);
  return { nodes, node };
}

/**
 * Where this GPU is in its hive (gfxhub_v1_1.c). MC_VM_XGMI_LFB_CNTL_ALDE: PF_LFB_REGION b3:0 is this node,
 * PF_MAX_REGION b7:4 the last one, 0 without a hive; MC_VM_XGMI_LFB_SIZE_ALDE: a segment in units of 16 MiB.
 */
export function declareHive(mmio: Mmio, { hive, vram }: FrameBuffer): void {
  const control = hive === undefined ? 0 : ((hive.nodes.length - 1) << 4) | hive.node;
  mmio.declare('xgmi', {
    XGMI_LFB_CNTL: { dw: 0x2978, writable: 0, reset: control },
    XGMI_LFB_SIZE: { dw: 0x2979, writable: 0, reset: vram.sizeBytes / 2 ** 24 },
  });
}
