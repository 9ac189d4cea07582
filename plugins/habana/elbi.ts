/**
 * The ELBI mailbox: four vendor registers at the end of configuration space through which the driver reaches the register
 * space before its BARs are mapped. L/common/pci/pci.c hl_pci_elbi_read, hl_pci_elbi_write.
 */
import { type BarRegisters, type Log, RegisterBlock } from '../../emulator/plugin.js';
import { CFG_BASE } from './address-map.js';
import type { CfgSpace } from './cfg-space.js';

/** L/include/hw_ip/pci/pci_general.h mmPCI_CONFIG_ELBI_ADDR and following. */
export const ELBI_CONFIG_OFFSET = 0xff0;
export const elbi = { ADDR: 0x0, DATA: 0x4, CTRL: 0x8, STS: 0xc } as const;
/** PCI_CONFIG_ELBI_CTRL_WRITE, _STS_DONE, _STS_ERR of the same file. */
export const CTRL_WRITE = 0x80000000;
export const STS_DONE = 0x80000000;
export const STS_ERR = 0x40000000;

/** Only the low half of an address passes through the mailbox; the upper one is that of the register space. */
const CFG_BASE_LOW = CFG_BASE % 2 ** 32;

export class ElbiMailbox {
  readonly #cfg: CfgSpace;
  readonly #registers: RegisterBlock<keyof typeof elbi>;

  constructor(cfg: CfgSpace, log: Log) {
    this.#cfg = cfg;
    this.#registers = new RegisterBlock(
      { name: 'ELBI', sizeBytes: 16, log },
      {
        ADDR: { offset: elbi.ADDR },
        DATA: { offset: elbi.DATA },
        CTRL: { offset: elbi.CTRL, onWrite: (control) => this.#execute(control) },
        STS: { offset: elbi.STS },
      },
    );
  }

  get configRegisters(): BarRegisters {
    return { offset: ELBI_CONFIG_OFFSET, sizeBytes: 16, registers: this.#registers };
  }

  reset(): void {
    this.#registers.reset();
  }

  /** Done before the write is answered: the driver polls STS for 10 ms only. */
  #execute(control: number): void {
    const cfgOffset = this.#registers.get('ADDR') - CFG_BASE_LOW;
    if ((control & CTRL_WRITE) !== 0) {
      const isDone = this.#cfg.write(cfgOffset, this.#registers.get('DATA'));
      this.#registers.set('STS', isDone ? STS_DONE : STS_ERR);
      return;
    }
    const value = this.#cfg.read(cfgOffset);
    this.#registers.set('DATA', value ?? 0);
    this.#registers.set('STS', value === undefined ? STS_ERR : STS_DONE);
  }
}
