import { type BlockLayout, PAGE_BYTES, unimplemented } from '../block.js';

/** L/include/gaudi/asic_reg/gaudi_regs.h, registers mmPCIE_*. */
export const pcieBlocks: readonly BlockLayout[] = [
  { name: 'PCIE_WRAP', base: 0xc01000, registers: { LBW_PROT_OVR: 0xb48 } },
  // The window through which the driver programs the address translation unit; see hl_pci_iatu_write in L/common/pci/pci.c.
  { name: 'PCIE_DBI', base: 0xc02000, registers: {} },
  { name: 'PCIE_CORE', base: 0xc04000, registers: { MSI_REQ: 0x100 } },
  { name: 'PCIE_AUX', base: 0xc07000, registers: { FLR_CTRL: 0x394, DBI: 0x490 } },
  { name: 'PCIE_MSI', base: 0xc13000, registers: { INTR_0: 0x000 } },
].map(({ registers, ...place }) => ({
  ...place,
  sizeBytes: PAGE_BYTES,
  registers: unimplemented(registers as Record<string, number>),
}));
