/** The register of the PCIe core through which engines send the function's interrupt (mmPCIE_CORE_MSI_REQ). */
import { type Log, RegisterBlock } from 'ghostbus';
import { PAGE_BYTES } from '../interconnect/address-map.js';

export function pcieCoreRegisters(sendInterrupt: () => void, log: Log) {
  return new RegisterBlock(
    { name: 'PCIE_CORE', sizeBytes: PAGE_BYTES, undeclared: 'storage', log },
    {
      // Whatever is written: the driver uses one message for everything (gaudi_enable_msi_single).
      MSI_REQ: { offset: 0x100, onWrite: () => sendInterrupt() },
    },
  );
}
