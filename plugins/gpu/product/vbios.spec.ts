import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { PRODUCTS } from './product.js';
import { vbios } from './vbios.js';

for (const [id, { identity }] of Object.entries(PRODUCTS)) {
  describe(`gpu video BIOS of ${id}`, () => {
    const bytes = vbios(identity);
    const view = new DataView(bytes.buffer);
    const u16 = (offset: number) => view.getUint16(offset, true);
    const text = (offset: number, length: number) =>
      Buffer.from(bytes.subarray(offset, offset + length)).toString('latin1');
    const dataTable = (index: number) => u16(u16(u16(0x48) + 0x20) + 4 + 2 * index);

    it('is a ROM: signature, length, byte sum zero', () => {
      assert.deepEqual([bytes[0], bytes[1], bytes[2]! * 512], [0x55, 0xaa, bytes.length]);
      assert.equal(
        bytes.reduce((sum, byte) => (sum + byte) & 0xff, 0),
        0,
      );
    });

    it('names the function in its PCI data structure', () => {
      const pcir = u16(0x18);
      assert.equal(text(pcir, 4), 'PCIR');
      assert.deepEqual([u16(pcir + 4), u16(pcir + 6)], [identity.vendorId, identity.deviceId]);
      assert.equal(bytes[pcir + 15], identity.classCode >>> 16, 'base class');
    });

    it('passes check_atom_bios', () => {
      assert.equal(text(0x30, 10), ' 761295520');
      assert.equal(text(u16(0x48) + 4, 4), 'ATOM');
    });

    it('has the strings without which atom_get_vbios_pn adds to a null pointer', () => {
      assert.notEqual(bytes[0x2f], 0);
      assert.match(text(u16(0x6e), 32), /^113-/);
      assert.match(text(u16(0x6e), 0x200 - u16(0x6e)), /ATOMBIOSBK-AMD VER\d/);
    });

    it('has the data tables in the revisions that the driver knows', () => {
      const revision = (index: number) => [bytes[dataTable(index) + 2], bytes[dataTable(index) + 3]];
      assert.deepEqual(revision(4), [3, 1], 'firmwareinfo');
      assert.deepEqual(revision(8), [3, 1], 'smu_info');
      assert.deepEqual(revision(11), [2, 1], 'vram_usagebyfirmware');
      assert.deepEqual(revision(14), [2, 4], 'gfx_info');
      assert.deepEqual(revision(28), [2, 3], 'vram_info');
      assert.equal(view.getUint32(dataTable(4) + 0x18, true), 0x4c, 'bios_scratch_reg_startaddr');
      assert.equal(bytes[dataTable(28) + 0x18 + 0x17], 0x60, 'HBM2');
    });

    it('has an asic_init that ends at once', () => {
      const commands = u16(u16(0x48) + 0x1e);
      assert.equal(bytes[u16(commands + 4) + 6], 0x5b);
    });
  });
}
