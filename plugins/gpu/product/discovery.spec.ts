import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'mocha';
import { closeBuses, TestDriver } from '../test/driver.js';
import { discoveryTable } from './discovery.js';
import { PRODUCTS } from './product.js';

const sum = (bytes: Uint8Array) => bytes.reduce((total, byte) => (total + byte) & 0xffff, 0);

for (const [id, { blocks, sdmaEngines }] of Object.entries(PRODUCTS)) {
  describe(`gpu discovery table of ${id}`, () => {
    afterEach(closeBuses);

    const bytes = discoveryTable(blocks);
    const view = new DataView(bytes.buffer);
    const u16 = (offset: number) => view.getUint16(offset, true);
    const u32 = (offset: number) => view.getUint32(offset, true);

    /** The entries of the one die, read as amdgpu_discovery_reg_base_init does. */
    const entries = () => {
      const die = u16(u16(12) + 16);
      let at = die + 4;
      const list = Array.from({ length: u16(die + 2) }, () => {
        const bases = Array.from({ length: bytes[at + 3]! }, (_, index) => u32(at + 8 + 4 * index));
        const entry = {
          hardwareId: u16(at),
          instance: bytes[at + 2],
          version: [...bytes.subarray(at + 4, at + 7)],
          bases,
        };
        at += 8 + 4 * bases.length;
        return entry;
      });
      return { list, end: at };
    };

    it('passes the checks of amdgpu_discovery_init', () => {
      assert.equal(u32(0), 0x28211407);
      assert.equal(u16(10), bytes.length);
      assert.equal(u16(8), sum(bytes.subarray(10)), 'checksum of the binary');
      for (const entry of [12, 20]) {
        const [offset, checksum, size] = [u16(entry), u16(entry + 2), u16(entry + 4)];
        assert.equal(checksum, sum(bytes.subarray(offset, offset + size)), `checksum of the table at ${offset}`);
      }
    });

    it('lists every block with its version and bases', () => {
      const expected = blocks.map(({ instance = 0, ...block }) => ({ instance, ...block }));
      assert.deepEqual(entries().list, expected);
      assert.equal(entries().end, u16(20), 'the GC information follows');
    });

    it('carries gc_info v2.0 with 8 shader engines', () => {
      const gc = u16(20);
      assert.deepEqual([u32(gc), u16(gc + 4), u16(gc + 6), u32(gc + 8), u32(gc + 12)], [0x4347, 2, 0, 80, 8]);
    });

    it('lists what is there: each engine answers where its block is said to lie', () => {
      const driver = new TestDriver(undefined, undefined, { id: id as keyof typeof PRODUCTS });
      const engines = entries().list.filter(({ hardwareId }) => hardwareId === 42);
      assert.equal(engines.length, sdmaEngines);
      for (const { instance, bases } of engines) {
        // sdma_v4_0_get_reg_offset takes segment 1 from engine 2 on; F32_CNTL is 0x2a, HALT after reset.
        const first = bases[instance! < 2 ? 0 : 1]!;
        assert.equal(driver.reg(first + 0x2a), 1, `engine ${instance}`);
      }
      for (const { hardwareId, bases } of entries().list) {
        const probe = PROBES[hardwareId];
        if (probe === undefined) assert.ok(SILENT.includes(hardwareId), `block ${hardwareId} has a register to ask`);
        else assert.equal(driver.reg(bases[probe.segment]! + probe.register), probe.value, `block ${hardwareId}`);
      }
    });
  });
}

/** By hardware id: a register that tells the block is there, relative to a segment. */
const PROBES: Readonly<Record<number, { segment: number; register: number; value: number }>> = {
  11: { segment: 0, register: 0x8d, value: 0x5000_0000 }, // GC: CP_MEC_CNTL, halted
  34: { segment: 0, register: 0xcc0, value: 0x8000 }, // MMHUB: MC_VM_FB_LOCATION_BASE
  108: { segment: 2, register: 0xc3, value: 64 }, // NBIF: RCC_CONFIG_MEMSIZE, MiB
  255: { segment: 0, register: 0x61, value: 0x8000_0000 }, // MP0: C2PMSG_33, ready
};

/**
 * HDP, ATHUB, OSSSYS, SDMA (asked above), MP1, UVD, SMUIO: registers that are zero until written, or none that is read.
 */
const SILENT = [41, 35, 40, 42, 1, 12, 4];
