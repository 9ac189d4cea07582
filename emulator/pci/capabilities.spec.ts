import assert from 'node:assert/strict';
import {
  deviceSerialNumber,
  msi,
  msix,
  pciExpress,
  resizableBar,
  vendorSpecific,
  vendorSpecificExtended,
} from './capabilities.js';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('capability factories', () => {
  it('size MSI by address width and masks', () => {
    const lengths = [
      [false, false],
      [true, false],
      [false, true],
      [true, true],
    ].map(
      ([address64, perVectorMask]) =>
        msi({ vectors: 8, address64: address64!, perVectorMask: perVectorMask! }).bytes.length,
    );
    // linux/pci_regs.h PCI_MSI_DATA_32 + 2, PCI_MSI_DATA_64 + 2, PCI_MSI_PENDING_32 + 4, PCI_MSI_PENDING_64 + 4.
    assert.deepEqual(lengths, [0x0a, 0x0e, 0x14, 0x18]);
  });

  it('lay out MSI-X', () => {
    const { bytes } = msix({
      vectors: 2048,
      tableBar: 2,
      tableOffset: 0x1000,
      pendingBar: 4,
      pendingOffset: 0xfffffff8,
    });
    assert.equal(hex(bytes), '0000ff0702100000fcffffff');
  });

  it('encode link and payload of PCI Express', () => {
    const slow = pciExpress({
      linkSpeed: 2.5,
      linkWidth: 1,
      maxPayloadBytes: 128,
      functionLevelReset: false,
      extendedTag: false,
    });
    assert.equal(hex(slow.bytes.subarray(2, 0x14)), '0200' + '00800000' + '10280000' + '11004000' + '00001110');
    assert.equal(hex(slow.bytes.subarray(0x2c, 0x34)), '02000000' + '01000000');
    const fast = pciExpress({ linkSpeed: 32, linkWidth: 16, maxPayloadBytes: 512 });
    assert.equal(hex(fast.bytes.subarray(2, 0x14)), '0200' + '22800010' + '10280000' + '05014000' + '00000511');
    assert.equal(hex(fast.bytes.subarray(0x2c, 0x34)), '3e000000' + '05001e00');
  });

  it('list several sizes of a resizable BAR', () => {
    const capability = resizableBar({
      bars: [
        { index: 0, sizeBytes: 2 ** 28, otherSizesBytes: [2 ** 20, 2 ** 47] },
        { index: 2, sizeBytes: 2 ** 21 },
      ],
    });
    assert.equal(hex(capability.bytes.subarray(4)), '10100080' + '40080000' + '20000000' + '02010000');
    assert.ok(capability.writable.every((mask) => mask === 0));
  });

  it('place themselves only when told to', () => {
    assert.equal('offset' in pciExpress(), false);
    assert.equal(pciExpress({ offset: 0x70 }).offset, 0x70);
  });

  const refused: readonly [string, () => unknown, RegExp][] = [
    ['3 MSI vectors', () => msi({ vectors: 3 }), /vectors is 3; make it a power of two from 1 to 32/],
    ['64 MSI vectors', () => msi({ vectors: 64 }), /vectors is 64/],
    [
      '0 MSI-X vectors',
      () => msix({ vectors: 0, tableBar: 0, tableOffset: 0, pendingBar: 0, pendingOffset: 0 }),
      /vectors is 0/,
    ],
    [
      '2049 MSI-X vectors',
      () => msix({ vectors: 2049, tableBar: 0, tableOffset: 0, pendingBar: 0, pendingOffset: 0 }),
      /vectors is 2049/,
    ],
    [
      'a table off 8 bytes',
      () => msix({ vectors: 1, tableBar: 0, tableOffset: 4, pendingBar: 0, pendingOffset: 0 }),
      /table at offset 4; it must be a multiple of 8/,
    ],
    [
      'pending bits in BAR 6',
      () => msix({ vectors: 1, tableBar: 0, tableOffset: 0, pendingBar: 6, pendingOffset: 0 }),
      /pending bits in BAR 6/,
    ],
    ['a link of 3 lanes', () => pciExpress({ linkWidth: 3 as 4 }), /linkWidth is 3; use one of 1, 2, 4/],
    ['a link of 10 GT/s', () => pciExpress({ linkSpeed: 10 as 8 }), /linkSpeed is 10/],
    ['payload of 100 bytes', () => pciExpress({ maxPayloadBytes: 100 as 128 }), /maxPayloadBytes is 100/],
    ['vendor data too long', () => vendorSpecific({ data: new Uint8Array(190) }), /190 bytes of data/],
    [
      'vendor masks of another length',
      () => vendorSpecific({ data: new Uint8Array(4), writable: new Uint8Array(3) }),
      /writable has 3 bytes/,
    ],
    [
      'a VSEC id of 17 bits',
      () => vendorSpecificExtended({ vsecId: 0x10000, revision: 0, data: new Uint8Array(4) }),
      /id 65536/,
    ],
    [
      'a VSEC mask of another length',
      () => vendorSpecificExtended({ vsecId: 1, revision: 0, data: new Uint8Array(4), writable: new Uint8Array(8) }),
      /writable has 8 bytes/,
    ],
    ['a serial number of 65 bits', () => deviceSerialNumber({ serialNumber: 2n ** 64n }), /does not fit in 64 bits/],
    [
      'a resizable BAR of 512 KiB',
      () => resizableBar({ bars: [{ index: 0, sizeBytes: 2 ** 19 }] }),
      /size 524288; use a power of two from 1 MiB/,
    ],
    ['no resizable BAR', () => resizableBar({ bars: [] }), /0 BARs; list 1 to 6/],
  ];
  for (const [what, make, message] of refused) {
    it(`refuse ${what}`, () => {
      assert.throws(make, message);
    });
  }
});
