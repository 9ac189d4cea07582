import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rememberedCounterKHz } from './host-clock.js';

describe('the frequency of the host’s counter', () => {
  let folder = '';
  let file = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ghostbus-spec-'));
    file = join(folder, 'cache', 'frequencies.json');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const measuring = (kHz: number | undefined, model = 'EPYC') =>
    rememberedCounterKHz({ model: async () => model, measure: async () => kHz, file });

  it('is whole MHz, and stays what it was while measurements agree with it', async () => {
    assert.equal(await measuring(2_445_499.7), 2_445_000);
    assert.equal(await measuring(2_445_500.2), 2_445_000);
    assert.equal(await measuring(2_455_000), 2_445_000);
    assert.deepEqual(readdirSync(join(folder, 'cache')), ['frequencies.json']);
  });

  it('is taken anew when a measurement does not agree', async () => {
    await measuring(2_445_000);
    assert.equal(await measuring(2_500_000), 2_500_000);
    assert.equal(await measuring(2_499_000), 2_500_000);
  });

  it('is remembered for each model of processor', async () => {
    await measuring(2_445_000);
    assert.equal(await measuring(2_450_000, 'Xeon'), 2_450_000);
    assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), { EPYC: 2_445_000, Xeon: 2_450_000 });
  });

  it('is unknown when it cannot be measured, whatever is remembered', async () => {
    await measuring(2_445_000);
    assert.equal(await measuring(undefined), undefined);
  });

  for (const [what, text] of [
    ['is not JSON', '{"EPYC":'],
    ['holds something else', '{"EPYC":"fast"}'],
    ['holds nothing', 'null'],
  ] as const) {
    it(`is measured anew when the file ${what}`, async () => {
      await measuring(3_000_000);
      writeFileSync(file, text);
      assert.equal(await measuring(2_445_000), 2_445_000);
    });
  }

  it('needs no file that can be written', async () => {
    file = '/dev/null/frequencies.json';
    assert.equal(await measuring(2_445_400), 2_445_000);
  });
});
