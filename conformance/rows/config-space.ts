import assert from 'node:assert/strict';
import { DEVICE_SERIAL_NUMBER_ID } from '../../emulator/pci/device-serial-number.js';
import { MSI_ID } from '../../emulator/pci/msi.js';
import { MSIX_ID } from '../../emulator/pci/msix.js';
import { PCI_EXPRESS_ID } from '../../emulator/pci/pci-express.js';
import { POWER_MANAGEMENT_ID } from '../../emulator/pci/power-management.js';
import { VENDOR_SPECIFIC_ID } from '../../emulator/pci/vendor-specific.js';
import { VENDOR_SPECIFIC_EXTENDED_ID } from '../../emulator/pci/vendor-specific-extended.js';
import type { Bench } from '../bench.js';
import { peek, poke, type Row, readRegion, refused, resetDevice, succeed } from '../row.js';
import { VENDOR_DATA } from '../shape.js';
import type { Wire } from '../wire.js';

const CONFIG = 7;
/** Config header offsets, linux/pci_regs.h. */
const COMMAND = 0x04;
const STATUS = 0x06;
const BAR1 = 0x14;
const BAR2 = 0x18;
const BAR4 = 0x20;
const ROM = 0x30;
/** Offsets inside capabilities, linux/pci_regs.h. */
const MSI_CONTROL = 2;
const MSIX_CONTROL = 2;
const MSIX_TABLE = 4;
const DEVCTL = 8;
const DEVCTL2 = 0x28;
const LNKCTL2 = 0x30;
const PMCSR = 4;

const u16 = (value: number) => [value & 0xff, value >>> 8];
const u32 = (value: number) => [...u16(value & 0xffff), ...u16(value >>> 16)];

/** Offset of the capability, found as a driver finds it. */
function find(wire: Wire, id: number, list: 'standard' | 'extended' = 'standard'): number {
  const space = peek(wire, CONFIG, 0, 4096);
  const offset = capabilitiesOf(space, list).find((at) => idAt(space, at, list) === id);
  assert.ok(offset !== undefined, `capability ${id}`);
  return offset;
}

const idAt = (space: Buffer, at: number, list: 'standard' | 'extended') =>
  list === 'standard' ? space[at]! : space.readUInt16LE(at);

/** Offsets of one list in its order. */
function capabilitiesOf(space: Buffer, list: 'standard' | 'extended'): number[] {
  const [first, last] = list === 'standard' ? [space[0x34]!, 0x100] : [0x100, 4096 - 4];
  const next = (at: number) => (list === 'standard' ? space[at + 1]! : space.readUInt32LE(at) >>> 20);
  const seen: number[] = [];
  for (let at = first; at !== 0; at = next(at)) {
    assert.ok(at >= (list === 'standard' ? 0x40 : 0x100) && at < last && at % 4 === 0, `${list} capability at ${at}`);
    assert.ok(!seen.includes(at), `the ${list} list loops`);
    seen.push(at);
  }
  return seen;
}

const read16 = (wire: Wire, offset: number) => peek(wire, CONFIG, offset, 2).readUInt16LE();
const read32 = (wire: Wire, offset: number) => peek(wire, CONFIG, offset, 4).readUInt32LE();
const write = (wire: Wire, offset: number, bytes: readonly number[]) => poke(wire, CONFIG, offset, bytes);

/** The write succeeds and changes nothing in all of configuration space. */
function ignored(offsetOf: (wire: Wire) => number, bytes: readonly number[]) {
  return (wire: Wire) => {
    const before = peek(wire, CONFIG, 0, 4096);
    write(wire, offsetOf(wire), bytes);
    assert.deepEqual(peek(wire, CONFIG, 0, 4096), before);
  };
}

/** Reads back what was written. */
function stored(offsetOf: (wire: Wire) => number, bytes: readonly number[]) {
  return (wire: Wire) => {
    const offset = offsetOf(wire);
    write(wire, offset, bytes);
    assert.deepEqual([...peek(wire, CONFIG, offset, bytes.length)], bytes);
  };
}

const IGNORES = 'libvfio-user refuses; hardware ignores, and QEMU only logs an error';

/** Both lists end, and no capability reaches into another. */
function walk(bench: Bench): void {
  const space = peek(bench, CONFIG, 0, 4096);
  assert.deepEqual([capabilitiesOf(space, 'standard').length, capabilitiesOf(space, 'extended').length], [5, 2]);
  const { capabilities } = bench.device.config;
  const ranges = capabilities.map(({ offset, capability }) => [offset, offset + capability.bytes.length] as const);
  ranges.sort((a, b) => a[0] - b[0]);
  ranges.forEach(([start], i) => {
    if (i > 0) assert.ok(start >= ranges[i - 1]![1], 'capabilities overlap');
  });
}

export const CONFIG_SPACE_ROWS: readonly Row[] = [
  {
    id: 'C-01',
    what: 'write to a capability id, a next pointer: ignored',
    rejected: IGNORES,
    run: (wire) => {
      ignored((b) => find(b, POWER_MANAGEMENT_ID), [0xff])(wire);
      ignored((b) => find(b, MSI_ID), [0xff, 0xff])(wire);
    },
  },
  {
    id: 'C-02',
    what: 'write to a read-only vendor capability: ignored',
    rejected: IGNORES,
    run: ignored((wire) => find(wire, VENDOR_SPECIFIC_ID) + 2, [1, 2, 3, 4]),
  },
  {
    id: 'C-03',
    what: 'vendor capability: exact bytes',
    run: (wire) => {
      const at = find(wire, VENDOR_SPECIFIC_ID);
      const data = peek(wire, CONFIG, at + 3, VENDOR_DATA.length);
      assert.deepEqual([...data], [...VENDOR_DATA]);
      assert.equal(peek(wire, CONFIG, at + 2, 1)[0], 3 + VENDOR_DATA.length);
    },
  },
  {
    id: 'C-04',
    what: 'PM: 2 bytes at +3, 1 at +2, 2 at +5, 1 at +4: merged byte by byte',
    rejected: 'libvfio-user answers EINVAL; some QEMU versions write across registers (vfio-user.md §2.5)',
    run: (wire) => {
      const at = find(wire, POWER_MANAGEMENT_ID);
      const pmc = read16(wire, at + 2);
      write(wire, at + 3, [0xff, 3]);
      assert.equal(read16(wire, at + PMCSR) & 3, 3);
      write(wire, at + 2, [0xff]);
      write(wire, at + 5, [0xff, 0xff]);
      assert.equal(read16(wire, at + PMCSR) & 3, 3);
      write(wire, at + 4, [0]);
      assert.deepEqual([read16(wire, at + PMCSR) & 3, read16(wire, at + 2)], [0, pmc]);
    },
  },
  {
    id: 'C-05',
    what: 'PMC, 2 bytes: ignored',
    rejected: IGNORES,
    run: ignored((wire) => find(wire, POWER_MANAGEMENT_ID) + 2, [0xff, 0xff]),
  },
  {
    id: 'C-06',
    what: 'PMCSR, 2 bytes: state stored',
    run: (wire) => {
      const at = find(wire, POWER_MANAGEMENT_ID) + PMCSR;
      for (const state of [3, 0]) {
        write(wire, at, u16(state));
        assert.equal(read16(wire, at) & 3, state);
      }
    },
  },
  {
    id: 'C-07',
    what: 'PMCSR_BSE, data: ignored',
    rejected: IGNORES,
    run: ignored((wire) => find(wire, POWER_MANAGEMENT_ID) + 6, [0xff, 0xff]),
  },
  {
    id: 'C-08',
    what: 'MSI multiple message enable 7 (reserved): the largest offered',
    rejected: 'libvfio-user answers EINVAL; hardware has no errors for configuration writes',
    run: assertMessageEnable(7),
  },
  {
    id: 'C-09',
    what: 'MSI multiple message enable above capable: the largest offered',
    rejected: 'libvfio-user answers EINVAL; hardware has no errors for configuration writes',
    run: assertMessageEnable(3),
  },
  {
    id: 'C-10',
    what: 'MSI wholly written with zeros: multiple message capable kept',
    run: (wire) => {
      const at = find(wire, MSI_ID);
      write(wire, at, new Array<number>(14).fill(0));
      assert.equal((read16(wire, at + MSI_CONTROL) >> 1) & 7, 2);
    },
  },
  {
    id: 'C-11',
    what: 'MSI-X control 0xffff: only ENABLE and MASKALL stick',
    run: (wire) => {
      const at = find(wire, MSIX_ID) + MSIX_CONTROL;
      write(wire, at, u16(0xffff));
      assert.equal(read16(wire, at), 0xc000 | 2047);
      write(wire, at, u16(0));
      assert.equal(read16(wire, at), 2047);
    },
  },
  {
    id: 'C-12',
    what: 'MSI-X 2 bytes at control + 1: high byte applied, next byte ignored',
    run: (wire) => {
      const at = find(wire, MSIX_ID);
      const table = read32(wire, at + MSIX_TABLE);
      write(wire, at + MSIX_CONTROL + 1, [0x80, 0xff]);
      assert.deepEqual([read16(wire, at + MSIX_CONTROL), read32(wire, at + MSIX_TABLE)], [0x8000 | 2047, table]);
    },
  },
  {
    id: 'C-13',
    what: 'a byte to the MSI-X table register: ignored',
    run: ignored((wire) => find(wire, MSIX_ID) + MSIX_TABLE, [0xff]),
  },
  {
    id: 'C-14',
    what: 'Initiate FLR: the function is reset, the bit reads 0',
    inside: (bench) => {
      const at = find(bench, PCI_EXPRESS_ID) + DEVCTL;
      write(bench, COMMAND, u16(6));
      write(bench, at, u16(read16(bench, at) | 0x8000));
      assert.deepEqual([bench.device.resets, read16(bench, at) & 0x8000, read16(bench, COMMAND)], [1, 0, 0]);
    },
  },
  {
    id: 'C-15',
    what: 'Initiate FLR without the capability: ignored',
    rejected: IGNORES,
    variant: { functionLevelReset: false },
    inside: (bench) => {
      const at = find(bench, PCI_EXPRESS_ID) + DEVCTL;
      ignored(() => at, u16(read16(bench, at) | 0x8000))(bench);
      assert.equal(bench.device.resets, 0);
    },
  },
  {
    id: 'C-16',
    what: 'DEVCTL by 1 and 3 bytes, one before and after: merged byte by byte',
    rejected: 'libvfio-user answers EINVAL; merging is what hardware does',
    run: (wire) => {
      const at = find(wire, PCI_EXPRESS_ID) + DEVCTL;
      write(wire, at - 1, [0xff, 0x0f, 0]);
      assert.equal(read16(wire, at), 0x000f);
      write(wire, at + 1, [0x20]);
      assert.equal(read16(wire, at), 0x200f);
      write(wire, at, [0, 0x10, 0xff]);
      assert.equal(read16(wire, at), 0x1000);
    },
  },
  {
    id: 'C-17',
    what: 'DEVCTL2 0xadde: reads back',
    run: stored((wire) => find(wire, PCI_EXPRESS_ID) + DEVCTL2, u16(0xadde)),
  },
  {
    id: 'C-18',
    what: 'LNKCTL2: reads back',
    run: stored((wire) => find(wire, PCI_EXPRESS_ID) + LNKCTL2, u16(0xbeef)),
  },
  {
    id: 'C-19',
    what: 'extended capability header: ignored',
    rejected: IGNORES,
    run: ignored((wire) => find(wire, DEVICE_SERIAL_NUMBER_ID, 'extended'), [0xff, 0xff, 0xff, 0xff]),
  },
  {
    id: 'C-20',
    what: 'serial number: ignored, exact',
    rejected: IGNORES,
    run: (wire) => {
      const at = find(wire, DEVICE_SERIAL_NUMBER_ID, 'extended') + 4;
      ignored(() => at, new Array<number>(8).fill(0xff))(wire);
      assert.equal(peek(wire, CONFIG, at, 8).readBigUInt64LE(), 0x1122334455667788n);
    },
  },
  {
    id: 'C-21',
    what: 'vendor registers in an extended capability: stored',
    run: stored((wire) => find(wire, VENDOR_SPECIFIC_EXTENDED_ID, 'extended') + 8, [1, 2, 3, 4, 5, 6, 7, 8]),
  },
  {
    id: 'C-22',
    what: 'BAR 0xffffffff: size mask and type bits',
    run: (wire) => {
      for (const [register, mask] of [
        [BAR1, 0xfffff000],
        [BAR2, 0xffff8000],
      ] as const) {
        write(wire, register, u32(0xffffffff));
        assert.equal(read32(wire, register), mask);
      }
    },
  },
  {
    id: 'C-23',
    what: '64-bit BAR of 4 GiB: low half type bits only, high half all ones',
    variant: { largeBars: true },
    run: (wire) => {
      write(wire, BAR2, [...u32(0xffffffff), ...u32(0xffffffff)]);
      assert.deepEqual([read32(wire, BAR2), read32(wire, BAR2 + 4)], [0xc, 0xffffffff]);
      write(wire, BAR4 + 4, u32(0xffffffff));
      assert.equal(read32(wire, BAR4 + 4), 0xfffffffe);
    },
  },
  {
    id: 'C-24',
    what: 'BAR address: only bits above the size are stored',
    run: (wire) => {
      write(wire, BAR2, u32(0xfe00_ffff));
      assert.equal(read32(wire, BAR2), 0xfe00_8000);
    },
  },
  {
    id: 'C-25',
    what: 'odd half of a 64-bit BAR: the upper half of the address',
    variant: { largeBars: true },
    inside: (bench) => {
      write(bench, BAR2 + 4, u32(0x12));
      write(bench, COMMAND, u16(2));
      assert.equal(bench.device.config.barAddress(2), 0x12_0000_0000);
    },
  },
  {
    id: 'C-26',
    what: 'ROM BAR 0xfffff800 without ROM: reads 0',
    run: ignored(() => ROM, u32(0xfffff800)),
  },
  {
    id: 'C-27',
    what: 'COMMAND 0xffff: OK, defined bits stored',
    rejected: 'libvfio-user answers EINVAL for unlisted bits; they are simply not there',
    run: (wire) => {
      write(wire, COMMAND, u16(0xffff));
      assert.equal(read16(wire, COMMAND), 0x0547);
    },
  },
  {
    id: 'C-28',
    what: 'COMMAND byte by byte: merged',
    run: (wire) => {
      write(wire, COMMAND, [0x06]);
      write(wire, COMMAND + 1, [0x04]);
      assert.equal(read16(wire, COMMAND), 0x0406);
    },
  },
  {
    id: 'C-29',
    what: 'STATUS: a written 1 clears',
    inside: (bench) => {
      const receivedMasterAbort = 0x2000;
      bench.device.config.raise(COMMAND, receivedMasterAbort << 16);
      write(bench, STATUS, u16(0));
      assert.equal(read16(bench, STATUS) & receivedMasterAbort, receivedMasterAbort);
      write(bench, STATUS, u16(0xffff));
      assert.equal(read16(bench, STATUS), 0x0010);
    },
  },
  {
    id: 'C-30',
    what: 'ids, revision, class, pin: ignored',
    run: (wire) => {
      ignored(() => 0, [0, 0, 0, 0])(wire);
      ignored(() => 0x08, [0xff, 0xff, 0xff, 0xff])(wire);
      ignored(() => 0x2c, [0xff, 0xff, 0xff, 0xff])(wire);
      ignored(() => 0x3d, [0xff])(wire);
    },
  },
  {
    id: 'C-31',
    what: 'cache line, latency timer, interrupt line: stored',
    run: (wire) => {
      for (const offset of [0x0c, 0x0d, 0x3c]) stored(() => offset, [0x40])(wire);
    },
  },
  {
    id: 'C-32',
    what: 'reserved header bytes: ignored',
    rejected: 'libvfio-user answers EINVAL; hardware ignores',
    run: ignored(() => 0x35, [0xff, 0xff, 0xff]),
  },
  {
    id: 'C-33',
    what: 'a read across two capabilities: the bytes of each',
    run: (wire) => {
      const space = peek(wire, CONFIG, 0, 4096);
      const at = find(wire, MSI_ID);
      assert.deepEqual(peek(wire, CONFIG, at - 2, 4), space.subarray(at - 2, at + 2));
      assert.equal(space[at], MSI_ID);
    },
  },
  { id: 'C-34', what: 'a read beyond 4096: EINVAL', run: refused(readRegion(CONFIG, 4094, 4)) },
  {
    id: 'C-35',
    what: 'after DEVICE_RESET: COMMAND 0, BARs 0, D0, MSI and MSI-X off',
    run: (wire) => {
      write(wire, BAR1, u32(0xfe000000));
      write(wire, COMMAND, u16(6));
      write(wire, find(wire, MSI_ID) + MSI_CONTROL, u16(1));
      write(wire, find(wire, MSIX_ID) + MSIX_CONTROL, u16(0x8000));
      write(wire, find(wire, POWER_MANAGEMENT_ID) + PMCSR, u16(3));
      succeed(wire, resetDevice());
      assert.deepEqual(
        [
          read16(wire, COMMAND),
          read32(wire, BAR1),
          read16(wire, find(wire, MSI_ID) + MSI_CONTROL) & 1,
          read16(wire, find(wire, MSIX_ID) + MSIX_CONTROL) & 0x8000,
          read16(wire, find(wire, POWER_MANAGEMENT_ID) + PMCSR) & 3,
        ],
        [0, 0, 0, 0, 0],
      );
    },
  },
  { id: 'C-36', what: 'capability lists end, aligned, without overlap', inside: walk },
];

/** The fixture offers 4 messages: multiple message enable goes up to 2. */
function assertMessageEnable(asked: number) {
  return (wire: Wire) => {
    const at = find(wire, MSI_ID) + MSI_CONTROL;
    write(wire, at, u16(asked << 4));
    assert.equal((read16(wire, at) >> 4) & 7, 2);
  };
}
