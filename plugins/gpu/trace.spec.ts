/**
 * Plays a recorded probe of the stock driver against the GPU: register accesses in their order, as amdgpu of kernel
 * 7.2.13 made them to another model of the same ASIC that it accepted. Every value read must be the same, but for what
 * is listed with a reason.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'mocha';
import { hex } from './bus/registers.js';
import { closeBuses, TestDriver } from './test/driver.js';

/** Lines of `R` or `W`, dword number, value; both in hexadecimal. */
const TRACE = new URL('../../../plugins/gpu/test/traces/probe-7.2.13.txt', import.meta.url);
const VRAM_BYTES = 2 ** 30;

const RINGS = 'a ring wrote it, whose packets are not in the trace';
const BANKED = 'the other model had one copy for all queues, hardware and this one have one per queue';
const CLEARS_ITSELF = 'WPTR_OVERFLOW_CLEAR: the other model remembered it';

/** Registers whose reads differ, how often, and why. */
const DIFFERENCES: readonly (readonly [dword: number, name: string, reads: number, reason: string])[] = [
  [0x112c, 'IH_RB_CNTL_RING1', 1, CLEARS_ITSELF],
  [0x1138, 'IH_RB_CNTL_RING2', 1, CLEARS_ITSELF],
  [0x128a, 'SDMA0_F32_CNTL', 1, 'HALT: the other model did not start halted'],
  [0x30b0, 'CP_IQ_WAIT_TIME2', 1, RINGS],
  [0x3249, 'CP_HQD_PERSISTENT_STATE', 8, BANKED],
  [0x3254, 'CP_HQD_PQ_DOORBELL_CONTROL', 8, BANKED],
  [0x3256, 'CP_HQD_PQ_CONTROL', 8, BANKED],
  [0x326c, 'CP_HQD_EOP_CONTROL', 8, BANKED],
  [0xc040, 'SCRATCH_REG0', 11, RINGS],
];

interface Access {
  readonly line: number;
  readonly write: boolean;
  readonly dword: number;
  readonly value: number;
}

function readTrace(): Access[] {
  const lines = readFileSync(TRACE, 'utf8').trim().split('\n');
  return lines.map((text, index) => {
    const [kind, dword, value] = text.split(' ');
    return {
      line: index + 1,
      write: kind === 'W',
      dword: Number.parseInt(dword!, 16),
      value: Number.parseInt(value!, 16),
    };
  });
}

describe('gpu against a recorded probe', () => {
  let driver: TestDriver;
  const different: (Access & { readonly found: number })[] = [];
  let reads = 0;

  before(() => {
    driver = new TestDriver(undefined, undefined, { vram: VRAM_BYTES });
    for (const access of readTrace()) {
      if (access.write) {
        driver.setReg(access.dword, access.value);
        driver.bus.run();
        continue;
      }
      reads++;
      const found = driver.reg(access.dword);
      if (found !== access.value) different.push({ ...access, found });
    }
  });

  after(closeBuses);

  it('reads what the driver read', () => {
    const listed = new Set(DIFFERENCES.map(([dword]) => dword));
    const unexpected = different
      .filter(({ dword }) => !listed.has(dword))
      .map(({ line, dword, value, found }) => `line ${line}: dw ${hex(dword)} was ${hex(value)}, is ${hex(found)}`);
    assert.deepEqual(unexpected, []);
    assert.ok(reads > 400, `${reads} reads`);
  });

  for (const [dword, name, count, reason] of DIFFERENCES) {
    it(`differs in ${count} reads of ${name}: ${reason}`, () => {
      assert.equal(different.filter((access) => access.dword === dword).length, count);
    });
  }

  it('knows every register that the driver touched', () => {
    const { registers } = driver.model.inspect() as { registers: { unknown: unknown[]; outsideAperture: unknown[] } };
    assert.deepEqual([registers.unknown, registers.outsideAperture], [[], []]);
  });
});
