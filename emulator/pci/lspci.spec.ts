import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
import { CONFIG_SPACE_BYTES, ConfigSpace } from './config-space.js';
import type { Identity } from './identity.js';

const MIB = 1024 * 1024;

const IDENTITY: Identity = {
  vendorId: 0x1002,
  deviceId: 0x74a1,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x1100,
  classCode: 0x120000,
  revisionId: 0xc8,
};

const BARS: readonly BarShape[] = [
  { index: 0, kind: 'memory64', prefetchable: true, sizeBytes: 16 * 1024 * MIB },
  { index: 2, kind: 'memory64', prefetchable: true, sizeBytes: 2 * MIB },
  { index: 4, kind: 'io', sizeBytes: 256 },
  { index: 5, kind: 'memory32', sizeBytes: MIB },
];

const CAPABILITIES: readonly Capability[] = [
  vendorSpecific({ data: Uint8Array.of(1, 2, 3, 4, 5) }),
  powerManagement(),
  pciExpress({ maxPayloadBytes: 512, linkSpeed: 16, linkWidth: 16 }),
  msi({ vectors: 4, perVectorMask: true }),
  msix({ vectors: 256, tableBar: 5, tableOffset: 0x40000, pendingBar: 5, pendingOffset: 0x42000 }),
  vendorSpecificExtended({ vsecId: 1, revision: 1, data: new Uint8Array(8) }),
  advancedErrorReporting(),
  deviceSerialNumber({ serialNumber: 0x0200_00ff_fe00_0001n }),
  accessControlServices(),
  resizableBar({ bars: [{ index: 0, sizeBytes: 16 * 1024 * MIB, otherSizesBytes: [256 * MIB] }] }),
];

/** A dump as `lspci -xxxx` prints it, which `lspci -F` reads back. */
function dump(config: ConfigSpace): string {
  const bytes = new Uint8Array(CONFIG_SPACE_BYTES);
  config.read(0, bytes);
  const lines = ['01:00.0 emulated function'];
  for (let offset = 0; offset < bytes.length; offset += 16) {
    const row = [...bytes.subarray(offset, offset + 16)].map((byte) => byte.toString(16).padStart(2, '0'));
    lines.push(`${offset.toString(16).padStart(2, '0')}: ${row.join(' ')}`);
  }
  return `${lines.join('\n')}\n`;
}

function put(config: ConfigSpace, offset: number, value: number): void {
  config.write(offset, Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24));
}

/** What lspci prints of lists, registers or values that make no sense to it. */
const NONSENSE = [
  '<chain looped>',
  '<chain broken>',
  '<access denied>',
  '<unreadable>',
  '<invalid-64bit-slot>',
  '!!!',
  '<?>',
  '??',
  'nknown',
];

const installed = spawnSync('lspci', ['--version']).error === undefined;

describe('lspci -vvv', () => {
  let folder = '';
  after(() => rmSync(folder, { recursive: true, force: true }));

  function lspci(config: ConfigSpace): string {
    const file = join(folder, 'dump');
    writeFileSync(file, dump(config));
    const { status, stdout, stderr } = spawnSync('lspci', ['-F', file, '-vvv', '-nn'], { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    // lspci ends every vendor-specific capability that it has no decoder for with <?>, on real functions too.
    const judged = stdout.replaceAll(/(Vendor Specific Information: .*) <\?>/g, '$1');
    for (const nonsense of NONSENSE) assert.ok(!judged.includes(nonsense), `${nonsense} in:\n${stdout}`);
    return stdout;
  }

  before(function () {
    // scripts/test installs pciutils; elsewhere the rows of config-space.spec.ts stand alone.
    if (!installed) this.skip();
    folder = mkdtempSync(join(tmpdir(), 'ghostbus-lspci-'));
  });

  it('explains every register of a function with every capability', () => {
    const config = new ConfigSpace({ identity: IDENTITY, bars: BARS, capabilities: CAPABILITIES, romSizeBytes: 65536 });
    put(config, 0x10, 0);
    put(config, 0x14, 0x40);
    put(config, 0x18, 0xf0000000);
    put(config, 0x20, 0xc000);
    put(config, 0x24, 0xfe000000);
    config.write(0x04, Uint8Array.of(0x07, 0x04));
    const text = lspci(config);
    for (const line of [
      '[1002:74a1] (rev c8)',
      '[1200]',
      'Control: I/O+ Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+',
      'Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-',
      'Region 0: Memory at 4000000000 (64-bit, prefetchable)',
      'Region 2: Memory at f0000000 (64-bit, prefetchable)',
      'Region 4: I/O ports at c000',
      'Region 5: Memory at fe000000 (32-bit, non-prefetchable)',
      'Vendor Specific Information: Len=08',
      'Power Management version 3',
      'Status: D0 NoSoftRst+ PME-Enable- DSel=0 DScale=0 PME-',
      'Express (v2) Endpoint',
      'MaxPayload 512 bytes, PhantFunc 0',
      'ExtTag+ AttnBtn- AttnInd- PwrInd- RBE+ FLReset+',
      'RlxdOrd+ ExtTag- PhantFunc- AuxPwr- NoSnoop+ FLReset-',
      'MaxPayload 128 bytes, MaxReadReq 512 bytes',
      'Speed 16GT/s, Width x16, ASPM not supported',
      'ASPM Disabled; RCB 64 bytes',
      'Supported Link Speeds: 2.5-16GT/s, Crosslink- Retimer- 2Retimers- DRS-',
      'Target Link Speed: 16GT/s',
      'EqualizationComplete+ EqualizationPhase1+',
      'MSI: Enable- Count=1/4 Maskable+ 64bit+',
      'MSI-X: Enable- Count=256 Masked-',
      'Vector table: BAR=5 offset=00040000',
      'PBA: BAR=5 offset=00042000',
      'Vendor Specific Information: ID=0001 Rev=1 Len=010',
      'Advanced Error Reporting',
      'UESvrt:\tDLP+ SDES+ TLP- FCP+ CmpltTO- CmpltAbrt- UnxCmplt- RxOF+ MalfTLP+ ECRC- UnsupReq- ACSViol-',
      'CEMsk:\tRxErr- BadTLP- BadDLLP- Rollover- Timeout- AdvNonFatalErr+',
      'Device Serial Number 02-00-00-ff-fe-00-00-01',
      'ACSCap:\tSrcValid- TransBlk- ReqRedir+ CmpltRedir+',
      'BAR 0: current size: 16GB, supported: 256MB 16GB',
    ]) {
      assert.ok(text.includes(line), `${line} is missing in:\n${text}`);
    }
  });

  it('shows what the guest enables', () => {
    const config = new ConfigSpace({ identity: IDENTITY, bars: BARS, capabilities: CAPABILITIES });
    const at = (name: string): number => config.capabilities.find(({ capability }) => capability.name === name)!.offset;
    config.write(at('Power Management') + 4, Uint8Array.of(3));
    config.write(at('MSI-X') + 3, Uint8Array.of(0x80));
    config.write(at('PCI Express') + 8, Uint8Array.of(0x4f, 0x51));
    config.write(at('Access Control Services') + 6, Uint8Array.of(0x0c));
    config.raise(at('Advanced Error Reporting') + 4, 0x00100000);
    const text = lspci(config);
    for (const line of [
      'Status: D3',
      'MSI-X: Enable+ Count=256 Masked-',
      'CorrErr+ NonFatalErr+ FatalErr+ UnsupReq+',
      'MaxPayload 512 bytes, MaxReadReq 4096 bytes',
      'ACSCtl:\tSrcValid- TransBlk- ReqRedir+ CmpltRedir+',
      'UESta:\tDLP- SDES- TLP- FCP- CmpltTO- CmpltAbrt- UnxCmplt- RxOF- MalfTLP- ECRC- UnsupReq+',
    ]) {
      assert.ok(text.includes(line), `${line} is missing in:\n${text}`);
    }
  });

  for (const [linkSpeed, shown] of [
    [2.5, 'Speed 2.5GT/s, Width x1'],
    [5, 'Speed 5GT/s, Width x1'],
    [8, 'Speed 8GT/s, Width x1'],
    [32, 'Speed 32GT/s, Width x1'],
  ] as const) {
    it(`shows a link of ${linkSpeed} GT/s`, () => {
      const config = new ConfigSpace({
        identity: IDENTITY,
        bars: [],
        capabilities: [pciExpress({ linkSpeed, linkWidth: 1, functionLevelReset: false })],
      });
      const text = lspci(config);
      assert.equal(text.split(shown).length - 1, 2, `LnkCap and LnkSta of:\n${text}`);
      assert.ok(text.includes(`Target Link Speed: ${linkSpeed}GT/s`), text);
      assert.ok(text.includes('FLReset-'), text);
    });
  }
});
