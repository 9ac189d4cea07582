import assert from 'node:assert/strict';
import type { BarShape } from './bar.js';
import {
  accessControlServices,
  advancedErrorReporting,
  type Capability,
  deviceSerialNumber,
  msi,
  msix,
  pciExpress,
  powerManagement,
  resizableBar,
  vendorSpecific,
  vendorSpecificExtended,
} from './capabilities.js';
import { ConfigSpace } from './config-space.js';
import type { Identity } from './identity.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

const IDENTITY: Identity = {
  vendorId: 0x1002,
  deviceId: 0x74a1,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x1100,
  classCode: 0x120000,
  revisionId: 0xc8,
};

const BARS: readonly BarShape[] = [
  { index: 0, kind: 'memory64', prefetchable: true, sizeBytes: 8 * GIB },
  { index: 2, kind: 'memory64', prefetchable: true, sizeBytes: 2 * MIB },
  { index: 4, kind: 'io', sizeBytes: 256 },
  { index: 5, kind: 'memory32', sizeBytes: 64 * 1024 },
];

const CAPABILITIES: readonly Capability[] = [
  powerManagement(),
  vendorSpecific({ data: Uint8Array.of(0xaa, 0xbb, 0xcc, 0xdd, 0xee) }),
  pciExpress(),
  msi({ vectors: 4, perVectorMask: true }),
  msix({ vectors: 64, tableBar: 5, tableOffset: 0x8000, pendingBar: 5, pendingOffset: 0x9000 }),
  vendorSpecificExtended({
    vsecId: 0x1234,
    revision: 1,
    data: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
    writable: Uint8Array.of(0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff),
  }),
  advancedErrorReporting(),
  deviceSerialNumber({ serialNumber: 0x0011223344556677n }),
  accessControlServices(),
  resizableBar({ bars: [{ index: 0, sizeBytes: 8 * GIB }] }),
];

function make(options: Partial<ConstructorParameters<typeof ConfigSpace>[0]> = {}): ConfigSpace {
  return new ConfigSpace({ identity: IDENTITY, bars: BARS, capabilities: CAPABILITIES, ...options });
}

function bytesAt(config: ConfigSpace, offset: number, lengthBytes: number): Uint8Array {
  const target = new Uint8Array(lengthBytes);
  config.read(offset, target);
  return target;
}

function get(config: ConfigSpace, offset: number, widthBytes: number): number {
  return bytesAt(config, offset, widthBytes).reduceRight((value, byte) => value * 256 + byte, 0);
}

function put(config: ConfigSpace, offset: number, widthBytes: number, value: number) {
  const source = Uint8Array.from({ length: widthBytes }, (_, index) => Math.floor(value / 256 ** index) & 0xff);
  return config.write(offset, source);
}

/** Offsets found as a driver finds them: by walking the lists. */
function walk(config: ConfigSpace): { id: number; offset: number; extended: boolean }[] {
  const found: { id: number; offset: number; extended: boolean }[] = [];
  for (let offset = get(config, 0x34, 1); offset !== 0 && found.length < 48; offset = get(config, offset + 1, 1)) {
    found.push({ id: get(config, offset, 1), offset, extended: false });
  }
  for (let offset = 0x100; offset !== 0 && get(config, offset, 4) !== 0 && found.length < 100; ) {
    found.push({ id: get(config, offset, 2), offset, extended: true });
    offset = get(config, offset + 2, 2) >> 4;
  }
  return found;
}

function offsetOf(config: ConfigSpace, id: number, extended = false): number {
  const found = walk(config).find((entry) => entry.id === id && entry.extended === extended);
  assert.ok(found, `capability ${id} is in the list`);
  return found.offset;
}

const PM = 0x01;
const MSI = 0x05;
const VENDOR = 0x09;
const PCIE = 0x10;
const MSIX = 0x11;
const AER = 0x01;
const DSN = 0x03;
const VSEC = 0x0b;
const ACS = 0x0d;
const REBAR = 0x15;

describe('ConfigSpace', () => {
  describe('header', () => {
    it('shows the identity, header type 0, no interrupt pin and a capability list', () => {
      const config = make();
      assert.equal(get(config, 0x00, 4), 0x74a11002);
      assert.equal(get(config, 0x08, 4), 0x120000c8);
      assert.equal(get(config, 0x0e, 1), 0);
      assert.equal(get(config, 0x2c, 4), 0x11001af4);
      assert.equal(get(config, 0x3d, 1), 0);
      assert.equal(get(config, 0x06, 2), 0x0010);
      assert.equal(get(config, 0x34, 1), 0x40);
    });

    it('has no list bit and no pointer without capabilities', () => {
      const config = make({ capabilities: [] });
      assert.equal(get(config, 0x06, 2), 0);
      assert.equal(get(config, 0x34, 1), 0);
      assert.equal(get(config, 0x100, 4), 0);
    });

    it('C-27 stores the defined bits of COMMAND and drops the others', () => {
      const config = make();
      put(config, 0x04, 2, 0xffff);
      assert.equal(get(config, 0x04, 2), 0x0547);
    });

    it('C-28 merges byte writes to COMMAND', () => {
      const config = make();
      put(config, 0x05, 1, 0x05);
      put(config, 0x04, 1, 0x06);
      assert.equal(get(config, 0x04, 2), 0x0506);
      put(config, 0x04, 1, 0x00);
      assert.equal(get(config, 0x04, 2), 0x0500);
    });

    it('C-29 clears STATUS bits by writing one, and only those', () => {
      const config = make();
      config.raise(0x04, 0xffffffff);
      assert.equal(get(config, 0x04, 4), 0xf9100000);
      put(config, 0x06, 2, 0x2000);
      assert.equal(get(config, 0x06, 2), 0xd910);
      put(config, 0x07, 1, 0xff);
      assert.equal(get(config, 0x06, 2), 0x0010);
    });

    it('C-30 and C-32 ignore writes to read-only and reserved header fields', () => {
      const config = make();
      const before = bytesAt(config, 0, 0x40);
      for (const [offset, length] of [
        [0x00, 4],
        [0x08, 4],
        [0x0e, 2],
        [0x28, 8],
        [0x34, 8],
        [0x3d, 3],
      ] as const) {
        config.write(offset, new Uint8Array(length).fill(0xff));
      }
      assert.deepEqual(bytesAt(config, 0, 0x40), before);
    });

    it('C-31 stores cache line size, latency timer and interrupt line', () => {
      const config = make();
      for (const offset of [0x0c, 0x0d, 0x3c]) {
        put(config, offset, 1, 0x40 + offset);
        assert.equal(get(config, offset, 1), 0x40 + offset);
      }
    });

    it('C-34 refuses ranges outside the 4096 bytes', () => {
      const config = make();
      assert.throws(() => config.read(4093, new Uint8Array(4)), RangeError);
      assert.throws(() => config.write(4096, new Uint8Array(1)), RangeError);
      assert.throws(() => config.read(-1, new Uint8Array(1)), RangeError);
      assert.equal(bytesAt(config, 0, 4096).length, 4096);
    });

    it('refuses an identity that does not fit', () => {
      assert.throws(
        () => make({ identity: { ...IDENTITY, classCode: 0x1000000 } }),
        /classCode is 16777216; it has 24/,
      );
    });
  });

  describe('BARs', () => {
    it('C-22 answers sizing with the size mask and the type bits', () => {
      const config = make();
      for (const offset of [0x18, 0x20, 0x24]) put(config, offset, 4, 0xffffffff);
      assert.equal(get(config, 0x18, 4), 0xffe0000c);
      assert.equal(get(config, 0x20, 4), 0xffffff01);
      assert.equal(get(config, 0x24, 4), 0xffff0000);
    });

    it('C-23 sizes a 4 GiB BAR through its upper half alone', () => {
      const config = make({
        bars: [{ index: 0, kind: 'memory64', prefetchable: true, sizeBytes: 4 * GIB }],
        capabilities: [],
      });
      put(config, 0x10, 4, 0xffffffff);
      put(config, 0x14, 4, 0xffffffff);
      assert.equal(get(config, 0x10, 4), 0x0000000c);
      assert.equal(get(config, 0x14, 4), 0xffffffff);
    });

    it('C-23 keeps low bits of the upper half clear beyond 4 GiB', () => {
      const config = make();
      put(config, 0x14, 4, 0xffffffff);
      assert.equal(get(config, 0x14, 4), 0xfffffffe);
    });

    it('C-24 stores only address bits above the size', () => {
      const config = make();
      put(config, 0x24, 4, 0xfebd1234);
      assert.equal(get(config, 0x24, 4), 0xfebd0000);
    });

    it('C-25 treats the odd register of a pair as the upper half', () => {
      const config = make();
      put(config, 0x1c, 4, 0x00000012);
      put(config, 0x18, 4, 0x34567890);
      assert.equal(get(config, 0x1c, 4), 0x12);
      put(config, 0x04, 2, 0x2);
      assert.equal(config.barAddress(2), 0x1234400000);
      assert.equal(config.barAddress(3), undefined);
    });

    it('hardwires registers without a BAR to zero', () => {
      const config = make({ bars: [], capabilities: [] });
      config.write(0x10, new Uint8Array(24).fill(0xff));
      assert.deepEqual(bytesAt(config, 0x10, 24), new Uint8Array(24));
    });

    it('C-26 reads zero from the ROM register when there is no ROM', () => {
      const config = make();
      put(config, 0x30, 4, 0xfffff800);
      assert.equal(get(config, 0x30, 4), 0);
    });

    it('sizes the ROM', () => {
      const config = make({ romSizeBytes: 128 * 1024 });
      put(config, 0x30, 4, 0xfffff800);
      assert.equal(get(config, 0x30, 4), 0xfffe0000);
      put(config, 0x30, 4, 0xffffffff);
      assert.equal(get(config, 0x30, 4), 0xfffe0001);
      assert.throws(() => make({ romSizeBytes: 3000 }), /ROM BAR of 3000 bytes: use a power of two/);
    });
  });

  describe('decode', () => {
    it('decodes a BAR only while memory is enabled, the address is not zero and the function is in D0', () => {
      const config = make();
      const pmcsr = offsetOf(config, PM) + 4;
      assert.equal(put(config, 0x24, 4, 0xfebd0000).decodeChanged, false);
      assert.equal(config.barAddress(5), undefined);
      assert.equal(put(config, 0x04, 2, 0x2).decodeChanged, true);
      assert.equal(config.barAddress(5), 0xfebd0000);
      assert.equal(config.barAddress(0), undefined);
      assert.equal(config.memoryEnabled, true);
      assert.equal(put(config, pmcsr, 2, 0x3).decodeChanged, true);
      assert.equal(config.barAddress(5), undefined);
      assert.equal(config.memoryEnabled, false);
      assert.equal(put(config, pmcsr, 2, 0x0).decodeChanged, true);
      assert.equal(config.barAddress(5), 0xfebd0000);
      assert.equal(put(config, 0x04, 2, 0x2).decodeChanged, false);
    });

    it('decodes I/O by its own enable bit', () => {
      const config = make();
      put(config, 0x20, 4, 0xc000);
      put(config, 0x04, 2, 0x2);
      assert.equal(config.barAddress(4), undefined);
      put(config, 0x04, 2, 0x1);
      assert.equal(config.barAddress(4), 0xc000);
    });

    it('does not decode a 32-bit BAR that ends with its space', () => {
      const config = make();
      put(config, 0x04, 2, 0x2);
      put(config, 0x24, 4, 0xffffffff);
      assert.equal(config.barAddress(5), undefined);
      put(config, 0x24, 4, 0xfffe0000);
      assert.equal(config.barAddress(5), 0xfffe0000);
    });

    it('does not decode addresses beyond 2^53, where sizing leaves a 64-bit BAR', () => {
      const config = make();
      put(config, 0x04, 2, 0x2);
      put(config, 0x10, 4, 0xffffffff);
      put(config, 0x14, 4, 0xffffffff);
      assert.equal(config.barAddress(0), undefined);
      put(config, 0x14, 4, 0x00200000);
      assert.equal(config.barAddress(0), undefined);
      put(config, 0x14, 4, 0x001ffffe);
      assert.equal(config.barAddress(0), 2 ** 53 - 8 * GIB);
    });

    it('lets the function master the bus with BME set and in D0', () => {
      const config = make();
      assert.equal(config.busMasterEnabled, false);
      assert.equal(put(config, 0x04, 2, 0x4).decodeChanged, true);
      assert.equal(config.busMasterEnabled, true);
      put(config, offsetOf(config, PM) + 4, 1, 3);
      assert.equal(config.busMasterEnabled, false);
    });

    it('needs no power management capability', () => {
      const config = make({ capabilities: [] });
      put(config, 0x24, 4, 0xfebd0000);
      put(config, 0x04, 2, 0x6);
      assert.equal(config.barAddress(5), 0xfebd0000);
      assert.equal(config.busMasterEnabled, true);
    });
  });

  describe('capability registers', () => {
    it('C-01 and C-19 ignore writes to headers', () => {
      const config = make();
      const before = walk(config);
      for (const { offset, extended } of before) config.write(offset, new Uint8Array(extended ? 4 : 2).fill(0xff));
      assert.deepEqual(walk(config), before);
    });

    it('C-02 and C-03 serve vendor data and ignore writes to it', () => {
      const config = make();
      const offset = offsetOf(config, VENDOR);
      config.write(offset, new Uint8Array(8).fill(0xff));
      assert.deepEqual(bytesAt(config, offset + 2, 6), Uint8Array.of(8, 0xaa, 0xbb, 0xcc, 0xdd, 0xee));
    });

    it('C-04 to C-07 merge any write into power management and change the state alone', () => {
      const config = make();
      const offset = offsetOf(config, PM);
      for (const [at, width] of [
        [3, 2],
        [2, 1],
        [5, 2],
        [2, 2],
        [6, 1],
        [7, 1],
      ] as const) {
        put(config, offset + at, width, 0xfcfc);
      }
      assert.deepEqual(bytesAt(config, offset + 2, 6), Uint8Array.of(0x03, 0, 0x08, 0, 0, 0));
      put(config, offset + 4, 1, 0x03);
      assert.equal(get(config, offset + 4, 2), 0x000b);
      put(config, offset + 4, 2, 0xff00);
      assert.equal(get(config, offset + 4, 2), 0x0008);
      put(config, offset + 4, 2, 0x0003);
      assert.equal(get(config, offset + 4, 2), 0x000b);
    });

    it('keeps the power state when asked for D1 or D2, which the function lacks', () => {
      const config = make();
      const pmcsr = offsetOf(config, PM) + 4;
      put(config, pmcsr, 2, 3);
      put(config, pmcsr, 2, 1);
      assert.equal(get(config, pmcsr, 2) & 3, 3);
      put(config, pmcsr, 2, 0);
      put(config, pmcsr, 2, 2);
      assert.equal(get(config, pmcsr, 2) & 3, 0);
    });

    it('C-08 and C-09 clamp Multiple Message Enable to what MSI offers', () => {
      const config = make();
      const offset = offsetOf(config, MSI);
      put(config, offset + 2, 2, 0x0071);
      assert.equal(get(config, offset + 2, 2), 0x01a5);
      put(config, offset + 2, 1, 0x11);
      assert.equal(get(config, offset + 2, 2), 0x0195);
    });

    it('C-10 keeps read-only fields of MSI when the whole capability is written with zeros', () => {
      const config = make();
      const offset = offsetOf(config, MSI);
      config.write(offset + 2, new Uint8Array(22).fill(0xff));
      assert.equal(get(config, offset + 4, 4), 0xfffffffc);
      assert.equal(get(config, offset + 16, 4), 0xf);
      config.write(offset, new Uint8Array(24));
      assert.equal(get(config, offset, 1), MSI);
      assert.equal(get(config, offset + 2, 2), 0x0184);
      assert.deepEqual(bytesAt(config, offset + 4, 20), new Uint8Array(20));
    });

    it('C-11 lets only enable and function mask of MSI-X stick', () => {
      const config = make();
      const offset = offsetOf(config, MSIX);
      put(config, offset + 2, 2, 0xffff);
      assert.equal(get(config, offset + 2, 2), 0xc03f);
    });

    it('C-12 and C-13 keep table and pending locations when a write runs into them', () => {
      const config = make();
      const offset = offsetOf(config, MSIX);
      put(config, offset + 3, 2, 0xff80);
      assert.equal(get(config, offset + 2, 2), 0x803f);
      put(config, offset + 4, 1, 0xff);
      assert.equal(get(config, offset + 2, 2), 0x803f);
      assert.equal(get(config, offset + 4, 4), 0x8005);
      assert.equal(get(config, offset + 8, 4), 0x9005);
    });

    it('C-14 reports a function-level reset; the bit reads zero', () => {
      const config = make();
      const devctl = offsetOf(config, PCIE) + 8;
      assert.deepEqual(put(config, devctl, 2, 0xa810), { effects: ['function-level-reset'], decodeChanged: false });
      assert.equal(get(config, devctl, 2), 0x2810);
      assert.deepEqual(put(config, devctl + 1, 1, 0x80).effects, ['function-level-reset']);
      assert.deepEqual(put(config, devctl, 1, 0xff).effects, []);
    });

    it('C-15 ignores the bit without the capability', () => {
      const config = make({ capabilities: [pciExpress({ functionLevelReset: false })] });
      const offset = offsetOf(config, PCIE);
      assert.deepEqual(put(config, offset + 8, 2, 0xa810).effects, []);
      assert.equal(get(config, offset + 8, 2), 0x2810);
      assert.equal(get(config, offset + 4, 4) & 0x10000000, 0);
    });

    it('C-16 merges odd widths around Device Control', () => {
      const config = make();
      const devctl = offsetOf(config, PCIE) + 8;
      put(config, devctl + 1, 1, 0x51);
      assert.equal(get(config, devctl, 2), 0x5110);
      config.write(devctl - 1, Uint8Array.of(0xff, 0x2f, 0x28));
      assert.equal(get(config, devctl, 2), 0x282f);
      config.raise(devctl, 0x000f0000);
      config.write(devctl + 1, Uint8Array.of(0x28, 0x05, 0x00));
      assert.equal(get(config, devctl + 2, 2), 0x000a);
    });

    it('C-17 and C-18 store Device Control 2 and Link Control 2', () => {
      const config = make();
      const offset = offsetOf(config, PCIE);
      for (const register of [0x28, 0x30]) {
        put(config, offset + register, 2, 0xadde);
        assert.equal(get(config, offset + register, 2), 0xadde);
      }
    });

    it('C-20 ignores writes to the serial number', () => {
      const config = make();
      const offset = offsetOf(config, DSN, true);
      config.write(offset + 4, new Uint8Array(8).fill(0xff));
      assert.deepEqual(bytesAt(config, offset + 4, 8), Uint8Array.of(0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00));
    });

    it('C-21 stores what software may write of an extended vendor capability', () => {
      const config = make();
      const offset = offsetOf(config, VSEC, true);
      assert.equal(get(config, offset + 4, 4), 0x01011234);
      config.write(offset + 8, Uint8Array.of(9, 9, 9, 9, 10, 11, 12, 13));
      assert.deepEqual(bytesAt(config, offset + 8, 8), Uint8Array.of(1, 2, 3, 4, 10, 11, 12, 13));
    });

    it('clears AER status by writing one and stores masks and severity', () => {
      const config = make();
      const offset = offsetOf(config, AER, true);
      assert.equal(get(config, offset + 8, 4), 0x00400000);
      assert.equal(get(config, offset + 12, 4), 0x00462030);
      assert.equal(get(config, offset + 20, 4), 0x2000);
      config.raise(offset + 4, 0x00104000);
      put(config, offset + 4, 4, 0x00100000);
      assert.equal(get(config, offset + 4, 4), 0x4000);
      put(config, offset + 8, 4, 0xffffffff);
      assert.equal(get(config, offset + 8, 4), 0x03fff030);
    });

    it('lets ACS services that exist be enabled', () => {
      const config = make();
      const offset = offsetOf(config, ACS, true);
      put(config, offset + 6, 2, 0xffff);
      assert.equal(get(config, offset + 4, 4), 0x000c000c);
    });

    it('keeps the size of a resizable BAR', () => {
      const config = make();
      const offset = offsetOf(config, REBAR, true);
      put(config, offset + 8, 4, 0);
      // 8 GiB is 2^13 MiB: bit 17 of the sizes, 13 in control; one BAR, index 0.
      assert.equal(get(config, offset + 4, 4), 1 << 17);
      assert.equal(get(config, offset + 8, 4), (13 << 8) | (1 << 5));
    });

    it('C-33 reads across two capabilities', () => {
      const config = make();
      const [first, second] = walk(config);
      assert.equal(second!.offset, first!.offset + 8);
      assert.deepEqual(
        bytesAt(config, second!.offset - 2, 4),
        Uint8Array.of(0, 0, VENDOR, get(config, second!.offset + 1, 1)),
      );
    });

    it('gives one write to every capability that it touches', () => {
      const touched: string[] = [];
      const spy = (name: string): Capability => ({
        name,
        id: 0x09,
        extended: false,
        bytes: Uint8Array.of(0, 0, 4, 0x11),
        writable: Uint8Array.of(0, 0, 0, 0xff),
        afterWrite: (current, written, previous) => {
          touched.push(`${name} ${current[3]} ${written.join()} ${previous[3]}`);
          return undefined;
        },
      });
      const config = make({ capabilities: [spy('first'), spy('second'), spy('third')] });
      config.write(0x43, Uint8Array.of(1, 2, 3));
      assert.deepEqual(touched, ['first 1 0,0,0,1 17', 'second 17 2,3,0,0 17']);
    });

    it('restores a header that a capability overwrites', () => {
      const capability: Capability = {
        ...vendorSpecific({ data: new Uint8Array(5) }),
        afterWrite: (current) => {
          current.fill(0x40);
          return undefined;
        },
      };
      const config = make({ capabilities: [capability] });
      config.write(0x44, Uint8Array.of(1));
      assert.deepEqual(bytesAt(config, 0x40, 4), Uint8Array.of(VENDOR, 0, 0x40, 0x40));
    });
  });

  describe('reset', () => {
    function disturbed(): ConfigSpace {
      const config = make({ romSizeBytes: 65536 });
      config.write(4, new Uint8Array(4092).fill(0xff));
      config.raise(offsetOf(config, AER, true) + 4, 0xffffffff);
      return config;
    }

    it('C-35 returns everything to power-on at a device reset', () => {
      const config = disturbed();
      config.reset('device');
      assert.deepEqual(bytesAt(config, 0, 4096), bytesAt(make({ romSizeBytes: 65536 }), 0, 4096));
    });

    it('stops decoding and mastering', () => {
      const config = make();
      put(config, 0x24, 4, 0xfebd0000);
      put(config, 0x04, 2, 0x6);
      config.reset('flr');
      assert.equal(config.barAddress(5), undefined);
      assert.equal(config.busMasterEnabled, false);
      // The guest restores COMMAND alone: QEMU shows it the BARs as they were.
      put(config, 0x04, 2, 0x6);
      assert.equal(config.barAddress(5), 0xfebd0000);
    });

    it('keeps sticky bits at a function-level reset', () => {
      const config = disturbed();
      const [addressLow, addressHigh] = [get(config, 0x10, 4), get(config, 0x14, 4)];
      config.reset('flr');
      const aer = offsetOf(config, AER, true);
      const pcie = offsetOf(config, PCIE);
      assert.equal(get(config, aer + 4, 4), 0x03fff030);
      assert.equal(get(config, aer + 12, 4), 0x03fff030);
      assert.equal(get(config, pcie + 8, 2), 0x28f0);
      assert.equal(get(config, 0x04, 2), 0);
      assert.equal(get(config, 0x10, 4), addressLow, 'QEMU keeps the address of a BAR too');
      assert.equal(get(config, 0x14, 4), addressHigh);
      assert.equal(get(config, offsetOf(config, PM) + 4, 2), 0x0008);
      assert.equal(get(config, offsetOf(config, MSI) + 2, 2), 0x0184);
      assert.equal(get(config, offsetOf(config, MSIX) + 2, 2), 0x003f);
      assert.equal(get(config, offsetOf(config, ACS, true) + 6, 2), 0);
    });
  });

  describe('capability placement', () => {
    const vendor = (lengthBytes: number, offset?: number): Capability =>
      vendorSpecific({ data: new Uint8Array(lengthBytes - 3), ...(offset === undefined ? {} : { offset }) });

    it('C-36 walks to an end, aligned, inside its space and without overlap', () => {
      const config = make();
      const list = walk(config);
      assert.equal(list.length, CAPABILITIES.length);
      assert.deepEqual(
        list.map(({ id }) => id),
        CAPABILITIES.map(({ id }) => id),
      );
      const claimed = new Set<number>();
      list.forEach(({ offset, extended }, position) => {
        assert.equal(offset % 4, 0);
        assert.ok(offset >= (extended ? 0x100 : 0x40));
        const lengthBytes = Math.max(extended ? 8 : 4, CAPABILITIES[position]!.bytes.length);
        assert.ok(offset + lengthBytes <= (extended ? 4096 : 256));
        for (let byte = offset; byte < offset + lengthBytes; byte++) {
          assert.ok(!claimed.has(byte), `byte ${byte} belongs to one capability`);
          claimed.add(byte);
        }
      });
    });

    it('writes id, version and next into extended headers', () => {
      const config = make({
        capabilities: [pciExpress(), advancedErrorReporting(), deviceSerialNumber({ serialNumber: 1n })],
      });
      assert.equal(get(config, 0x100, 4), 0x14820001);
      assert.equal(get(config, 0x148, 4), 0x00010003);
    });

    it('honours fixed offsets, keeps the order of the list and fills the gaps', () => {
      const config = make({
        capabilities: [pciExpress({ offset: 0x60 }), vendor(0x20), powerManagement({ offset: 0x40 }), vendor(0x10)],
      });
      assert.deepEqual(
        walk(config).map(({ offset }) => offset),
        [0x60, 0x9c, 0x40, 0x48],
      );
    });

    it('reserves 8 bytes for the smallest extended capability', () => {
      const small: Capability = {
        name: 'null',
        id: 0x18,
        extended: true,
        bytes: new Uint8Array(4),
        writable: new Uint8Array(4),
      };
      const config = make({ capabilities: [pciExpress(), small, deviceSerialNumber({ serialNumber: 1n })] });
      assert.deepEqual(
        walk(config).map(({ offset }) => offset),
        [0x40, 0x100, 0x108],
      );
      assert.throws(
        () => make({ capabilities: [pciExpress(), advancedErrorReporting(), { ...small, offset: 0xffc }] }),
        /null at 0xffc ends at 0x1004/,
      );
    });

    const refused: readonly [string, readonly Capability[], RegExp][] = [
      [
        'an offset below the list',
        [powerManagement({ offset: 0x3c })],
        /Power Management at 0x3c ends at 0x44: the standard list has 0x40/,
      ],
      ['a standard capability beyond 0xff', [powerManagement({ offset: 0xfc })], /ends at 0x104/],
      ['a misaligned offset', [powerManagement({ offset: 0x42 })], /must be a multiple of 4/],
      [
        'an overlap',
        [vendor(0x10, 0x40), powerManagement({ offset: 0x4c })],
        /Power Management at 0x4c overlaps Vendor-Specific/,
      ],
      [
        'more than fits',
        [vendor(0xb0), vendor(0x20)],
        /Vendor-Specific: no 32 free bytes are left in the standard list/,
      ],
      ['an extended capability without PCI Express', [advancedErrorReporting()], /needs the PCI Express capability/],
      [
        'a list that does not begin at 0x100',
        [pciExpress(), advancedErrorReporting({ offset: 0x200 })],
        /must be at 0x100, not at 0x200/,
      ],
      [
        'masks of another length',
        [{ ...powerManagement(), writable: new Uint8Array(4) }],
        /writable has 4 bytes, bytes has 8/,
      ],
      ['id 0', [{ ...powerManagement(), id: 0 }], /id 0 is not one of the standard list/],
    ];
    for (const [what, capabilities, message] of refused) {
      it(`refuses ${what}`, () => {
        assert.throws(() => make({ capabilities }), message);
      });
    }

    it('refuses a second capability of a kind, except of vendors', () => {
      assert.throws(() => make({ capabilities: [powerManagement(), powerManagement()] }), /listed twice/);
      const capability = vendor(8);
      assert.deepEqual(
        walk(make({ capabilities: [capability, capability] })).map(({ offset }) => offset),
        [0x40, 0x48],
      );
    });
  });

  describe('interrupt capability', () => {
    it('prefers MSI-X, and still tells about MSI', () => {
      const config = make();
      assert.deepEqual(config.interruptCapability, {
        kind: 'msix',
        vectors: 64,
        tableBar: 5,
        tableOffset: 0x8000,
        pendingBar: 5,
        pendingOffset: 0x9000,
      });
      assert.deepEqual(config.interruptCapabilityOf('msi'), { kind: 'msi', vectors: 4 });
      assert.deepEqual(make({ capabilities: [msi({ vectors: 1 })] }).interruptCapability, { kind: 'msi', vectors: 1 });
      assert.equal(make({ capabilities: [] }).interruptCapability, undefined);
    });

    it('checks the MSI-X structures against the BARs', () => {
      const capability = msix({ vectors: 64, tableBar: 3, tableOffset: 0, pendingBar: 5, pendingOffset: 0 });
      assert.throws(() => make({ capabilities: [capability] }), /MSI-X table: BAR 3 is not declared/);
    });
  });

  it('survives a fuzz of writes with read-only bits and lists intact', () => {
    const config = make({ romSizeBytes: 65536 });
    const list = walk(config);
    let seed = 1;
    const random = (limit: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return Math.floor((seed / 2 ** 32) * limit);
    };
    for (let round = 0; round < 20000; round++) {
      const source = Uint8Array.from({ length: 1 + random(8) }, () => random(256));
      config.write(random(4096 - source.length), source);
    }
    assert.deepEqual(walk(config), list);
    assert.equal(get(config, 0, 4), 0x74a11002);
    config.reset('device');
    assert.deepEqual(bytesAt(config, 0, 4096), bytesAt(make({ romSizeBytes: 65536 }), 0, 4096));
  });
});
