/**
 * The ELBI mailbox: four vendor registers at the end of configuration space through which the driver reaches the
 * register space before its BARs are mapped. L/common/pci/pci.c hl_pci_elbi_read, hl_pci_elbi_write.
 */
import { type BarRegisters, type Log, RegisterBlock } from 'ghostbus';
import { CFG_BASE, CFG_BYTES } from './address-map.js';
import type { ConfigWindow } from './config-window.js';

/** L/include/hw_ip/pci/pci_general.h mmPCI_CONFIG_ELBI_ADDR and following. */
export const ELBI_CONFIG_OFFSET = 0xff0;
export const ELBI = { ADDR: 0x0, DATA: 0x4, CTRL: 0x8, STS: 0xc } as const;
/** PCI_CONFIG_ELBI_CTRL_WRITE, _STS_DONE, _STS_ERR of the same file. */
export const CTRL_WRITE = 0x80000000;
export const STS_DONE = 0x80000000;
export const STS_ERR = 0x40000000;

/** Only the low half of an address passes through the mailbox; the upper one is that of the register space. */
const CFG_BASE_LOW = CFG_BASE % 2 ** 32;

export class ElbiMailbox {
  #config: ConfigWindow | undefined;
  readonly #registers: RegisterBlock<keyof typeof ELBI>;

  constructor(log: Log) {
    this.#registers = new RegisterBlock(
      { name: 'ELBI', sizeBytes: 16, log },
      {
        ADDR: { offset: ELBI.ADDR },
        DATA: { offset: ELBI.DATA },
        CTRL: { offset: ELBI.CTRL, onWrite: (control) => this.#execute(control) },
        STS: { offset: ELBI.STS },
      },
    );
  }

  get configRegisters(): BarRegisters {
    return { offset: ELBI_CONFIG_OFFSET, sizeBytes: 16, registers: this.#registers };
  }

  /** The register space of the device that there is now. */
  connect(config: ConfigWindow): void {
    this.#config = config;
  }

  /**
   * Done before the write is answered: the driver polls STS for 10 ms only. What the driver writes to the address
   * translation unit (PCIE_DBI) is stored and has no effect: the BARs always show what they show after its set-up.
   */
  #execute(control: number): void {
    const offset = this.#registers.get('ADDR') - CFG_BASE_LOW;
    const config = this.#config;
    if (config === undefined || offset < 0 || offset >= CFG_BYTES || offset % 4 !== 0) {
      this.#registers.set('DATA', 0);
      this.#registers.set('STS', STS_ERR);
      return;
    }
    if ((control & CTRL_WRITE) !== 0) config.write32(offset, this.#registers.get('DATA'));
    else this.#registers.set('DATA', config.read32(offset));
    this.#registers.set('STS', STS_DONE);
  }
}
