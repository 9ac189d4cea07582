/** What can be built of the blocks in this folder: a synthetic ASIC, and a real product. See README, "Ids". */
import type { Identity } from 'ghostbus';
import { BASES, SDMA_BASES } from './segments.js';

/** include/soc15_hw_ip.h *_HWID. */
const HARDWARE_ID = {
  MP1: 1,
  SMUIO: 4,
  GC: 11,
  UVD: 12,
  MMHUB: 34,
  ATHUB: 35,
  OSSSYS: 40,
  HDP: 41,
  SDMA0: 42,
  NBIF: 108,
  MP0: 255,
} as const;

/** A block that a discovery table lists. */
export interface IpEntry {
  readonly hardwareId: number;
  readonly instance?: number;
  readonly version: readonly [major: number, minor: number, revision: number];
  readonly bases: readonly number[];
}

export type ProductId = '7af0' | '740f';

export interface Product {
  readonly identity: Identity;
  readonly blocks: readonly IpEntry[];
  readonly sdmaEngines: number;
  /**
   * CHIP_ALDEBARAN to the driver, which looks for a hive, the data fabric and memory controllers by this type alone.
   */
  readonly aldebaran: boolean;
  /** Of amdgpu, beyond its defaults. */
  readonly moduleParameters?: string;
}

/** What both have: the blocks of Aldebaran that are modelled as they are there. */
const ALDEBARAN_BLOCKS: readonly IpEntry[] = [
  { hardwareId: HARDWARE_ID.GC, version: [9, 4, 2], bases: BASES.GC },
  { hardwareId: HARDWARE_ID.HDP, version: [4, 4, 0], bases: BASES.HDP },
  { hardwareId: HARDWARE_ID.MMHUB, version: [9, 4, 2], bases: BASES.MMHUB },
  { hardwareId: HARDWARE_ID.ATHUB, version: [9, 4, 2], bases: BASES.ATHUB },
  { hardwareId: HARDWARE_ID.NBIF, version: [7, 4, 4], bases: BASES.NBIF },
  { hardwareId: HARDWARE_ID.OSSSYS, version: [4, 4, 0], bases: BASES.OSSSYS },
  { hardwareId: HARDWARE_ID.SMUIO, version: [13, 0, 2], bases: BASES.SMUIO },
];

/**
 * amdgpu binds by class (pciidlist, the class entries at its end) and takes any device id that its list does not name
 * as "IP discovery". 0x120000: processing accelerator.
 */
const SYNTHETIC: Product = {
  identity: {
    vendorId: 0x1002,
    deviceId: 0x7af0,
    subsystemVendorId: 0x1002,
    subsystemId: 0x0c34,
    classCode: 0x120000,
    revisionId: 0,
  },
  blocks: [
    ...ALDEBARAN_BLOCKS,
    { hardwareId: HARDWARE_ID.MP0, version: [12, 0, 1], bases: BASES.MP0 },
    { hardwareId: HARDWARE_ID.SDMA0, version: [4, 1, 2], bases: SDMA_BASES[0] },
    { hardwareId: HARDWARE_ID.MP1, version: [13, 0, 5], bases: BASES.MP0 },
    { hardwareId: HARDWARE_ID.UVD, version: [2, 0, 3], bases: BASES.UVD },
  ],
  sdmaEngines: 1,
  aldebaran: false,
};

/**
 * Instinct MI210. The driver knows this id's blocks by heart (amdgpu_discovery.c amdgpu_discovery_set_ip_blocks,
 * CHIP_ALDEBARAN) and reads the table only to show it in sysfs; here it lists those that are modelled. The parameters
 * leave out the others: direct firmware loading drops PSP and SMU, the mask drops VCN and JPEG, blocks 5 and 6.
 */
const MI210: Product = {
  identity: { ...SYNTHETIC.identity, deviceId: 0x740f, classCode: 0x038000 },
  blocks: [
    ...ALDEBARAN_BLOCKS,
    ...SDMA_BASES.map(
      (bases, instance): IpEntry => ({ hardwareId: HARDWARE_ID.SDMA0, instance, version: [4, 4, 0], bases }),
    ),
  ],
  sdmaEngines: SDMA_BASES.length,
  aldebaran: true,
  moduleParameters: 'fw_load_type=0 ip_block_mask=0x1f',
};

export const PRODUCTS: Readonly<Record<ProductId, Product>> = { '7af0': SYNTHETIC, '740f': MI210 };
