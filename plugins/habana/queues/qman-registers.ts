/** The page of registers of one queue manager (dma0_qm_regs.h), the same for every engine. */
import { type Log, RegisterBlock } from 'ghostbus';
import { PROTECTION_BITS } from '../blocks/protection-bits.js';
import { PAGE_BYTES } from '../interconnect/address-map.js';
import type { CommandProcessor } from './command-processor.js';

export const STREAMS = 4;
/** Command processors: one for each stream, and the lower one. */
export const CPS = 5;
const FENCES = 4;
/** Arbiters that a master can have. */
const SLAVES = 32;
/** DMA0_QM_CGM_STS_*. */
const CGM_IDLE = 0x100;

/** What a queue manager does when its registers are accessed. */
export interface QmanHooks {
  doorbell(): void;
  wake(): void;
  pushBuffer(cp: number): void;
  fence(fence: number, cp: number, value: number): void;
  status(): number;
  isIdle(): boolean;
  cpStatus(cp: number): number;
  cp(index: number): CommandProcessor;
  clearArbiter(): void;
  pushChoice(stream: number): void;
  returnCredit(slave: number): void;
  choices(): number;
}

export function qmanRegisters(name: string, hooks: QmanHooks, log: Log) {
  return new RegisterBlock(
    { name, sizeBytes: PAGE_BYTES, undeclared: 'storage', log },
    {
      ...globalRegisters(hooks),
      ...queueRegisters(hooks),
      ...processorRegisters(hooks),
      ...arbiterRegisters(hooks),
      ...PROTECTION_BITS,
    },
  );
}

function globalRegisters(hooks: QmanHooks) {
  return {
    GLBL_CFG0: { offset: 0x00, onWrite: () => hooks.wake() },
    GLBL_CFG1: { offset: 0x04, onWrite: () => hooks.wake() },
    GLBL_PROT: { offset: 0x08 },
    GLBL_ERR_CFG: { offset: 0x0c },
    GLBL_SECURE_PROPS: { offset: 0x10, count: CPS },
    GLBL_NON_SECURE_PROPS: { offset: 0x24, count: CPS },
    GLBL_STS0: { offset: 0x38, writable: 0, onRead: () => hooks.status() },
    GLBL_STS1: { offset: 0x40, count: CPS, writable: 0, writeOneToClear: 0xffff },
    CGM_CFG: { offset: 0xc70 },
    CGM_STS: { offset: 0xc74, writable: 0, onRead: () => (hooks.isIdle() ? CGM_IDLE : 0) },
    CGM_CFG1: { offset: 0xc78 },
    LOCAL_RANGE_BASE: { offset: 0xc80 },
    LOCAL_RANGE_SIZE: { offset: 0xc84 },
    GLBL_AXCACHE: { offset: 0xca4 },
    GLBL_ERR_ADDR_LO: { offset: 0xcd0 },
    GLBL_ERR_ADDR_HI: { offset: 0xcd4 },
    GLBL_ERR_WDATA: { offset: 0xcd8 },
    GLBL_MEM_INIT_BUSY: { offset: 0xd00, writable: 0 },
  } as const;
}

function queueRegisters(hooks: QmanHooks) {
  const pointer = (cp: number) => hooks.cp(cp).fetchPointer;
  return {
    PQ_BASE_LO: { offset: 0x70, count: STREAMS },
    PQ_BASE_HI: { offset: 0x80, count: STREAMS },
    PQ_SIZE: { offset: 0x90, count: STREAMS },
    PQ_PI: { offset: 0xa0, count: STREAMS, onWrite: () => hooks.doorbell() },
    PQ_CI: { offset: 0xb0, count: STREAMS },
    CQ_PTR_LO: { offset: 0x174, count: CPS, strideBytes: 0x10 },
    CQ_PTR_HI: { offset: 0x178, count: CPS, strideBytes: 0x10 },
    CQ_TSIZE: {
      offset: 0x17c,
      count: CPS,
      strideBytes: 0x10,
      onWrite: (_value: number, _previous: number, cp: number) => hooks.pushBuffer(cp),
    },
    CQ_CTL: { offset: 0x180, count: CPS, strideBytes: 0x10 },
    CQ_PTR_LO_STS: {
      offset: 0x1c4,
      count: CPS,
      writable: 0,
      onRead: (_stored: number, cp: number) => pointer(cp).address % 2 ** 32,
    },
    CQ_PTR_HI_STS: {
      offset: 0x1d8,
      count: CPS,
      writable: 0,
      onRead: (_stored: number, cp: number) => Math.floor(pointer(cp).address / 2 ** 32),
    },
    CQ_TSIZE_STS: {
      offset: 0x1ec,
      count: CPS,
      writable: 0,
      onRead: (_stored: number, cp: number) => pointer(cp).lengthBytes,
    },
  } as const;
}

function processorRegisters(hooks: QmanHooks) {
  return {
    // Four bases, each the low halves for five CPs and then the high halves.
    CP_MSG_BASE: { offset: 0x228, count: 4 * 2 * CPS },
    CP_LDMA_TSIZE_OFFSET: { offset: 0x2c8, count: CPS },
    CP_LDMA_SRC_BASE_LO_OFFSET: { offset: 0x2e0, count: CPS },
    CP_LDMA_DST_BASE_LO_OFFSET: { offset: 0x2f4, count: CPS },
    CP_FENCE_RDATA: {
      offset: 0x308,
      count: FENCES * CPS,
      onWrite: (value: number, _previous: number, index: number) =>
        hooks.fence(Math.floor(index / CPS), index % CPS, value),
    },
    CP_FENCE_CNT: { offset: 0x358, count: FENCES * CPS },
    CP_STS: {
      offset: 0x3a8,
      count: CPS,
      writable: 0,
      onRead: (_stored: number, cp: number) => hooks.cpStatus(cp),
    },
    CP_CURRENT_INST_LO: {
      offset: 0x3bc,
      count: CPS,
      writable: 0,
      onRead: (_stored: number, cp: number) => hooks.cp(cp).currentInstruction[0],
    },
    CP_CURRENT_INST_HI: {
      offset: 0x3d0,
      count: CPS,
      writable: 0,
      onRead: (_stored: number, cp: number) => hooks.cp(cp).currentInstruction[1],
    },
    CP_BARRIER_CFG: { offset: 0x3f4, count: CPS },
  } as const;
}

function arbiterRegisters(hooks: QmanHooks) {
  return {
    ARB_CFG_0: { offset: 0xa00, onWrite: () => hooks.wake() },
    ARB_CHOISE_Q_PUSH: { offset: 0xa04, onWrite: (value: number) => hooks.pushChoice(value) },
    ARB_WRR_WEIGHT: { offset: 0xa08, count: STREAMS },
    ARB_CFG_1: {
      offset: 0xa18,
      onWrite: (value: number) => {
        if ((value & 1) !== 0) hooks.clearArbiter();
      },
    },
    ARB_MST_AVAIL_CRED: { offset: 0xa20, count: SLAVES },
    ARB_MST_CRED_INC: { offset: 0xaa0, onWrite: (value: number) => hooks.returnCredit(value) },
    ARB_MST_CHOISE_PUSH_OFST: { offset: 0xaa4, count: SLAVES },
    ARB_SLV_MASTER_INC_CRED_OFST: { offset: 0xb28 },
    ARB_MST_SLAVE_EN: { offset: 0xb2c },
    ARB_MST_QUIET_PER: { offset: 0xb34 },
    ARB_SLV_CHOISE_WDT: { offset: 0xb38 },
    ARB_SLV_ID: { offset: 0xb3c },
    ARB_MSG_MAX_INFLIGHT: { offset: 0xb44 },
    ARB_BASE_LO: { offset: 0xb54 },
    ARB_BASE_HI: { offset: 0xb58 },
    ARB_CHOISE_FULLNESS_STS: { offset: 0xb84, writable: 0, onRead: () => hooks.choices() },
    ARB_ERR_CAUSE: { offset: 0xb9c, writable: 0, writeOneToClear: 0x7 },
    ARB_ERR_MSG_EN: { offset: 0xba0 },
  } as const;
}
