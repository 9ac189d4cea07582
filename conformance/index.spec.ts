/**
 * The public face as somebody uses it whose server runs in a process of its own: a socket path is all that is known.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { conformanceRows, runConformanceRow, type Variant } from 'ghostbus/conformance';
import { GROUPS } from './checklist.js';

const PROGRAM = fileURLToPath(new URL('test/serve-function.js', import.meta.url));

describe('conformance rows over a socket', () => {
  let folder: string;
  let socketPath: string;
  let server: ChildProcess;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'ghostbus-conformance-'));
    socketPath = join(folder, 'function.sock');
    server = spawn(process.execPath, [PROGRAM, socketPath], { stdio: ['pipe', 'pipe', 'inherit'] });
  });

  after(async () => {
    server.stdin!.end();
    await once(server, 'exit');
    rmSync(folder, { recursive: true });
  });

  /** A fresh function behind the socket. */
  async function start(variant: Variant): Promise<void> {
    const ready = once(server.stdout!, 'data');
    server.stdin!.write(`${JSON.stringify(variant)}\n`);
    await ready;
  }

  for (const row of conformanceRows()) {
    it(`${row.id} ${row.what}`, async () => {
      await start(row.variant);
      runConformanceRow(row, socketPath);
    });
  }

  it('covers every group but the one that needs a model which does DMA', () => {
    const groups = new Set(conformanceRows().map(({ group }) => group));
    const missing = Object.keys(GROUPS).filter((group) => !groups.has(group));
    assert.deepEqual(missing, ['DMA messages']);
  });

  it('fails with what came where a server does otherwise', async () => {
    const row = conformanceRows().find(({ id }) => id === 'I-17')!;
    await start({ ...row.variant, largeBars: false });
    assert.throws(() => runConformanceRow(row, socketPath), { name: 'AssertionError', message: /sizeBytes/ });
  });

  it('refuses a row that it does not have', () => {
    const row = { ...conformanceRows()[0]!, id: 'Z-99' };
    assert.throws(() => runConformanceRow(row, '/nowhere'), /no conformance row Z-99/);
  });
});
