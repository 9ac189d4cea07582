/**
 * The video BIOS image behind the ROM BAR: headers, six data tables and one empty command table, just what amdgpu reads
 * (amdgpu_bios.c check_atom_bios, atom.c amdgpu_atom_parse, amdgpu_atomfirmware.c). It contains no code.
 */
import { ImageBuilder } from 'ghostbus/kit';
import { COMPUTE_SHAPE } from './compute-shape.js';

const VBIOS_BYTES = 4096;

/** Places of the pieces in the image; our choice, except that the vendor string lies between the strings and 0x200. */
const PCIR = 0x100;
const STRINGS = 0x140;
const VERSION = 0x1a0;
const CONFIG_FILE_NAME = 0x1d0;
const ROM_HEADER = 0x200;
const COMMAND_LIST = 0x280;
const ASIC_INIT = 0x3c0;
const DATA_LIST = 0x400;
const FIRMWARE_INFO = 0x500;
const VRAM_USAGE = 0x580;
const GFX_INFO = 0x600;
const VRAM_INFO = 0x700;
const SMU_INFO = 0x780;
const INDIRECT_IO = 0x7c0;

/** Dword of BIOS_SCRATCH_0; nbio.ts declares the registers there. */
const BIOS_SCRATCH = 0x4c;

/** Indices of atom_master_list_of_data_tables_v2_1 (include/atomfirmware.h). */
const DATA_TABLE = {
  firmwareinfo: 4,
  smu_info: 8,
  vram_usagebyfirmware: 11,
  gfx_info: 14,
  indirectioaccess: 23,
  vram_info: 28,
};

/** ATOM opcode "end of table" (atom.h ATOM_OP_EOT). */
const OP_END = 0x5b;

interface VbiosOptions {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly classCode: number;
}

/** Builds the image; its byte sum is zero, as a ROM's is. */
export function vbios(options: VbiosOptions): Uint8Array {
  const image = new ImageBuilder({ sizeBytes: VBIOS_BYTES });
  writeRomHeaders(image, options);
  writeStrings(image);
  writeAtomHeader(image);
  writeDataTables(image);
  return image.balance8(VBIOS_BYTES - 1, 0, VBIOS_BYTES).bytes;
}

function writeRomHeaders(image: ImageBuilder, { vendorId, deviceId, classCode }: VbiosOptions): void {
  // A firmware that runs option ROMs meets a far return at byte 3.
  image.u8(0, 0x55, 0xaa, VBIOS_BYTES / 512, 0xcb).u16(0x18, PCIR);
  image.text(0x30, ' 761295520').u16(0x48, ROM_HEADER).text(0x50, '01/01/26 00:00');
  // PCI data structure (PCI Firmware 3.0 §5.1.2): code type 0, last image.
  image.text(PCIR, 'PCIR').u16(PCIR + 4, vendorId, deviceId, 0, 0x18);
  image.u8(PCIR + 13, classCode & 0xff, (classCode >> 8) & 0xff, (classCode >> 16) & 0xff);
  image.u16(PCIR + 16, VBIOS_BYTES / 512).u8(PCIR + 21, 0x80);
}

/**
 * Part number, ASIC, bus, memory, product. Number of strings (0x2f) and the pointer (0x6e) must not be zero: without
 * them atom_get_vbios_pn (atom.c) adds to a null pointer.
 */
function writeStrings(image: ImageBuilder): void {
  image.u8(0x2f, 4).u16(0x6e, STRINGS);
  const strings = ['113-GHOSTBUS-001', 'GHOSTBUS', 'PCI_EXPRESS', 'HBM'];
  image.text(STRINGS, `${strings.join('\0')}\0\r\nghostbus emulated GPU`);
  image.text(VERSION, 'ATOMBIOSBK-AMD VER017.001.000.000.000001');
}

function writeAtomHeader(image: ImageBuilder): void {
  // atom_rom_header_v2_2.
  image
    .u16(ROM_HEADER, 0x28)
    .u8(ROM_HEADER + 2, 2, 2)
    .text(ROM_HEADER + 4, 'ATOM');
  image.u16(ROM_HEADER + 0x0c, CONFIG_FILE_NAME).u16(ROM_HEADER + 0x1e, COMMAND_LIST, DATA_LIST);
  // 81 command tables; only asic_init (index 0) exists, and it does nothing: after a reset the driver runs it.
  image
    .u16(COMMAND_LIST, 4 + 2 * 81)
    .u8(COMMAND_LIST + 2, 2, 1)
    .u16(COMMAND_LIST + 4, ASIC_INIT);
  image.u16(ASIC_INIT, 8).u8(ASIC_INIT + 2, 2, 1, 0, 16, OP_END, 0);
}

function writeDataTables(image: ImageBuilder): void {
  image.u16(DATA_LIST, 4 + 2 * 35).u8(DATA_LIST + 2, 2, 1);
  const table = (name: keyof typeof DATA_TABLE, at: number, size: number, format: number, content: number) => {
    image.u16(DATA_LIST + 4 + 2 * DATA_TABLE[name], at);
    image.u16(at, size).u8(at + 2, format, content);
  };
  // atom_firmware_info_v3_1: revision, boot clocks of 1 GHz and 1.6 GHz in 10 kHz, where BIOS_SCRATCH_0 is.
  table('firmwareinfo', FIRMWARE_INFO, 0x48, 3, 1);
  image.u32(FIRMWARE_INFO + 4, 0x1_0000, 100_000, 160_000).u32(FIRMWARE_INFO + 0x18, BIOS_SCRATCH);
  // vram_usagebyfirmware_v2_1: firmware keeps nothing.
  table('vram_usagebyfirmware', VRAM_USAGE, 12, 2, 1);
  table('gfx_info', GFX_INFO, 0x60, 2, 4);
  writeGfxInfo(image);
  table('vram_info', VRAM_INFO, 0x44, 2, 3);
  writeVramInfo(image);
  // atom_smu_info_v3_1: reference clock in 10 kHz, 100 MHz; bus/reference-clock.ts counts at this rate.
  table('smu_info', SMU_INFO, 0x20, 3, 1);
  image.u32(SMU_INFO + 0x10, 10_000);
  // First byte must not be ATOM_IIO_START (1), so that no I/O program is indexed (atom.c atom_index_iio).
  table('indirectioaccess', INDIRECT_IO, 8, 1, 1);
}

/** atom_gfx_info_v2_4; must agree with the discovery table. */
function writeGfxInfo(image: ImageBuilder): void {
  const shape = COMPUTE_SHAPE;
  image.u8(
    GFX_INFO + 4,
    9,
    9,
    shape.shaderEngines,
    0,
    shape.computeUnitsPerArray,
    shape.arraysPerEngine,
    shape.renderBackendsPerEngine,
    shape.textureChannelCaches,
  );
  // The last of eight dwords is rlc_gpu_timer_refclk, in 10 kHz.
  image.u32(GFX_INFO + 0x28, 10_000);
  image.u8(GFX_INFO + 0x2c, shape.computeUnitsPerArray, shape.renderBackendsPerEngine);
  image.u16(GFX_INFO + 0x30, shape.registersPerUnit, 0, 0, shape.waveSize, shape.wavesPerUnit, shape.localDataShare);
  image.u8(GFX_INFO + 0x3c, shape.maxGsThreads, shape.gsTableDepth, 0, shape.scratchSlotsPerUnit);
}

/** atom_vram_info_header_v2_3 with one atom_vram_module_v9: HBM2, 32 channels of 2^7 bits. */
function writeVramInfo(image: ImageBuilder): void {
  const module = VRAM_INFO + 0x18;
  image.u8(VRAM_INFO + 0x14, 1);
  image.u32(module, 16384, 0xffff_ffff, 160_000);
  image.u16(module + 0x14, 0x2c).u8(module + 0x16, 0, 0x60, 32, 7, 0, 0, 1);
}
