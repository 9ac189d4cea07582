/** Machines that are restored from one that was booted once: each is one of its own. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, statSync } from 'node:fs';
import { open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BootOptions, Guest } from 'ghostbus/session';
import { assertCleanKernelLog, sh, withMachine } from 'ghostbus/session';
import { cacheFolder } from '../../qemu/index.js';

const MINUTE_MS = 60_000;
/** The clock is set before the guest has its functions, by a question that an agent under TCG takes a moment over. */
const CLOCK_S = 20;

interface Facts {
  readonly bootId: string;
  readonly random: string;
  readonly log: string;
}

async function factsOf(guest: Guest): Promise<Facts> {
  const before = Date.now() / 1000;
  const now = Number(await sh(guest, 'date +%s'));
  assert.ok(
    now >= before - CLOCK_S && now <= Date.now() / 1000 + CLOCK_S,
    `the guest's clock says ${now}, not ${before}`,
  );
  return {
    bootId: await sh(guest, 'cat /proc/sys/kernel/random/boot_id'),
    random: await sh(guest, 'busybox head -c 16 /dev/urandom | busybox od -An -tx1'),
    log: await guest.dmesg(),
  };
}

const MIB = 2 ** 20;
/** Sizes of memory that nobody else's machines have, so that theirs are told apart while others are made. */
const DAMAGED_MIB = 520;
const ENDED_MIB = 456;

/** Folders of saved machines with about this much memory: a state file ends with the last page that is not zero. */
function snapshots(memMiB: number): string[] {
  return readdirSync(cacheFolder())
    .filter((name) => /^snapshot-[0-9a-f]+$/.test(name))
    .map((name) => join(cacheFolder(), name))
    .filter((path) => {
      const size = statSync(join(path, 'state'), { throwIfNoEntry: false })?.size ?? 0;
      return Math.abs(size - memMiB * MIB) < 16 * MIB;
    });
}

describe('a machine that is restored', () => {
  it('has its own clock, boot id, random numbers, files and log', () =>
    withMachine({ kernel: 'latest', devices: ['example'], warmAtOnce: true }, async ({ boot, log }) => {
      const all: Facts[] = [];
      for (const file of ['first', 'second']) {
        const extra = { path: `/etc/run-${file}`, contents: Buffer.from(file) };
        const guest = await boot({ extraFiles: [extra], bootTimeoutMs: 5 * MINUTE_MS });
        all.push(await factsOf(guest));
        assert.equal(await sh(guest, 'cat /etc/run-*'), file);
        assert.match(await sh(guest, 'busybox dmesg'), /crng reseeded due to virtual machine fork/);
        await assertCleanKernelLog(guest);
        await guest.kill();
      }
      const [first, second] = all as [Facts, Facts];
      assert.notEqual(first.bootId, second.bootId);
      assert.notEqual(first.random, second.random);
      for (const { log: words } of all) {
        assert.doesNotMatch(words, /Linux version/);
        assert.match(words, /pci 0000:01:00\.0/);
      }
      assert.deepEqual(log.complaints, []);
    }));

  it('loads modules of the run that belong before a driver which was there already', () =>
    withMachine({ kernel: 'latest', devices: ['habana'] }, async ({ boot, log }) => {
      const guest = await boot({ bootTimeoutMs: 5 * MINUTE_MS });
      const initState = await sh(guest, 'cat /sys/module/ghostbus_habana_open/initstate');
      assert.equal(initState.trim(), 'live');
      await sh(guest, ': < /dev/accel/accel0');
      await assertCleanKernelLog(guest);
      assert.deepEqual(log.complaints, []);
    }));

  it('is made anew when what was saved is damaged, and says so', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ghostbus-snapshot-'));
    const said: string[] = [];
    const machine = {
      kernel: 'latest',
      devices: ['example'],
      memMiB: DAMAGED_MIB,
      progress: (text: string) => said.push(text),
    };
    try {
      await withMachine(machine, async ({ boot }) => {
        for (const path of snapshots(DAMAGED_MIB)) await rm(path, { recursive: true });
        const consoleLogPath = join(folder, 'console');
        await (await boot({ consoleLogPath, kernelArgs: ['quiet'] })).kill();
        const made = snapshots(DAMAGED_MIB);
        assert.equal(made.length, 1);
        const console = await readFile(join(made[0]!, 'console'), 'latin1');
        assert.equal((await readFile(consoleLogPath, 'latin1')).slice(0, console.length), console);

        const state = await open(join(made[0]!, 'state'), 'r+');
        await state.write(Buffer.alloc(4096), 0, 4096, 0);
        await state.close();
        const guest = await boot({ kernelArgs: ['quiet'] });
        await sh(guest, 'ls -d /sys/bus/pci/devices/0000:01:00.0/driver');
        await guest.kill();
        assert.equal(said.filter((text) => /once, to be restored from now on/.test(text)).length, 2, said.join('\n'));
        for (const path of made) await rm(path, { recursive: true });
      });
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('leaves nothing when its making is ended', async () => {
    const abort = new AbortController();
    const options: Partial<BootOptions> = { kernelArgs: ['loglevel=4'], abort: abort.signal };
    const progress = (text: string) => {
      if (/once, to be restored/.test(text)) setImmediate(() => abort.abort());
    };
    await withMachine(
      { kernel: 'latest', devices: ['example'], memMiB: ENDED_MIB, warmAtOnce: true, progress },
      async ({ boot }) => {
        const known = snapshots(ENDED_MIB);
        await assert.rejects(boot(options));
        assert.deepEqual(snapshots(ENDED_MIB), known);
      },
    );
  });
});
