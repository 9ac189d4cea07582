import type { MemoryRegion, RegisterBlock } from 'ghostbus';
import type { Mmio } from './mmio.js';
import { MMIO_BYTES } from './registers.js';

/** ATOM_S7_ASIC_INIT_COMPLETE_MASK in BIOS_SCRATCH_7: the card counts as posted (include/atombios.h). */
const ASIC_INIT_COMPLETE = 0x200;

/** MM_INDEX bit 31: the pair addresses VRAM, not registers (amdgpu_device.c amdgpu_device_mm_access). */
const MM_INDEX_VRAM = 0x8000_0000;

/**
 * Bus interface (NBIO 7.4): configuration straps, doorbell apertures, scratch registers and the two index/data windows.
 * Register numbers: asic_reg/nbio/nbio_7_4_offset.h.
 */
export class Nbio {
  readonly #vram: MemoryRegion;
  readonly #mmio: Mmio;
  readonly #registers: RegisterBlock<
    'MM_INDEX' | 'MM_INDEX_HI' | 'PCIE_INDEX2' | 'PCIE_INDEX2_HI' | 'RCC_CONFIG_MEMSIZE' | 'BIOS_SCRATCH'
  >;

  constructor(vram: MemoryRegion, mmio: Mmio) {
    this.#vram = vram;
    this.#mmio = mmio;
    this.#registers = mmio.declare('nbio', {
      MM_INDEX: { dw: 0x0 },
      MM_DATA: { dw: 0x1, onRead: () => this.#readWindow(), onWrite: (value) => this.#writeWindow(value) },
      MM_INDEX_HI: { dw: 0x6 },
      // Read as BIOS_SCRATCH_7 before the driver knows where the scratch registers are (amdgpu_device_need_post with
      // bios_scratch_reg_offset 0); zero sends it to the ROM BAR for the VBIOS.
      UNNAMED_7: { dw: 0x7, writable: 0 },
      PCIE_INDEX2: { dw: 0xe },
      PCIE_DATA2: { dw: 0xf, onRead: () => this.#readIndirect(), onWrite: (value) => this.#writeIndirect(value) },
      PCIE_INDEX2_HI: { dw: 0x11 },
      // firmwareinfo.bios_scratch_reg_startaddr in our VBIOS is 0x4c; scratch 7 is index 7.
      BIOS_SCRATCH: { dw: 0x4c, count: 16 },
      DRIVER_SCRATCH: { dw: 0x94, count: 3 },
      RCC_DEV0_EPF0_STRAP0: { dw: 0xd31, writable: 0 },
      // The same register where Aldebaran has it (nbio_v7_4.c nbio_v7_4_get_rev_id).
      RCC_DEV0_EPF0_STRAP0_ALDE: { dw: 0xd35, writable: 0 },
      RCC_DOORBELL_APER_EN: { dw: 0xde0 },
      RCC_CONFIG_MEMSIZE: { dw: 0xde3, writable: 0, reset: this.#vram.sizeBytes / 2 ** 20 },
      RCC_IOV_FUNC_IDENTIFIER: { dw: 0xde5, writable: 0 },
      INTERRUPT_CNTL: { dw: 0xe11, count: 2 },
      DOORBELL_SELFRING_GPA_APER: { dw: 0xe13, count: 3 },
      GPU_HDP_FLUSH_REQ: { dw: 0xe26 },
      // Every access here is coherent, so every flush is done when it is asked for.
      GPU_HDP_FLUSH_DONE: { dw: 0xe27, writable: 0, reset: 0xffff_ffff },
      BACO_CNTL: { dw: 0xe2b, writable: 0 },
      REMAP_HDP_FLUSH_CNTL: { dw: 0xe4d, count: 2 },
      // Not in a row from engine 2 on (nbio_v7_4_sdma_doorbell_range).
      BIF_SDMA0_DOORBELL_RANGE: { dw: 0xef0, count: 2 },
      BIF_IH_DOORBELL_RANGE: { dw: 0xef2 },
      BIF_SDMA2_DOORBELL_RANGE: { dw: 0xef6, count: 2 },
      BIF_SDMA4_DOORBELL_RANGE: { dw: 0xef9 },
    });
    this.#registers.set('BIOS_SCRATCH', ASIC_INIT_COMPLETE, 7);
  }

  /** VRAM offset that the MM window addresses, or undefined when it addresses a register. */
  #vramOffset(): number | undefined {
    const index = this.#registers.get('MM_INDEX');
    if ((index & MM_INDEX_VRAM) === 0) return undefined;
    return this.#registers.get('MM_INDEX_HI') * 2 ** 31 + (index & 0x7fff_fffc);
  }

  #readWindow(): number {
    const offset = this.#vramOffset();
    if (offset === undefined) return this.#readRegister(this.#registers.get('MM_INDEX'));
    return offset + 4 <= this.#vram.sizeBytes ? this.#vram.readU32(offset) : 0xffff_ffff;
  }

  #writeWindow(value: number): undefined {
    const offset = this.#vramOffset();
    if (offset === undefined) this.#writeRegister(this.#registers.get('MM_INDEX'), value);
    else if (offset + 4 <= this.#vram.sizeBytes) this.#vram.writeU32(offset, value);
    return undefined;
  }

  #readIndirect(): number {
    return this.#readRegister(this.#registers.get('PCIE_INDEX2'));
  }

  #writeIndirect(value: number): undefined {
    this.#writeRegister(this.#registers.get('PCIE_INDEX2'), value);
    return undefined;
  }

  /** The windows do not lead to themselves: that would recurse without end. */
  #reachable(byteAddress: number): boolean {
    const dw = byteAddress >>> 2;
    return !(byteAddress < MMIO_BYTES && (dw === 0x1 || dw === 0xf));
  }

  #readRegister(byteAddress: number): number {
    return this.#reachable(byteAddress) ? this.#mmio.readDword(byteAddress >>> 2) : 0;
  }

  #writeRegister(byteAddress: number, value: number): void {
    if (this.#reachable(byteAddress)) this.#mmio.writeDword(byteAddress >>> 2, value);
  }
}
