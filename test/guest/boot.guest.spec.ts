import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  type BootOptions,
  bootGuest,
  buildGuestPrograms,
  ensureImage,
  findKernelComplaints,
  findQemu,
  type Guest,
  GuestClockError,
  type GuestError,
  GuestPanicError,
  GuestTimeoutError,
  hotplugBus,
  QemuExitError,
} from '../../qemu/index.js';
import { guestPackages } from '../../session/guest-parts.js';
import { hostCounterKHz } from '../../session/host-clock.js';

/** Those of ordinary guests, so that they share one user space and one compiler. */
const { packages, buildPackages } = await guestPackages([]);

async function boot(kernel: string, options: Partial<BootOptions> = {}): Promise<Guest> {
  return bootGuest({
    qemu: await findQemu(),
    image: await ensureImage({ kernel, packages }),
    accel: 'tcg',
    ...options,
  });
}

async function output(guest: Guest, ...argv: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await guest.capture(argv);
  assert.equal(exitCode, 0, `${argv.join(' ')}: ${stderr}`);
  return stdout.toString();
}

function processExists(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !readFileSync(`/proc/${pid}/stat`, 'latin1').includes(') Z ');
}

async function eventually(what: string, condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 1200; tries++) {
    if (condition()) return;
    await delay(100);
  }
  assert.fail(`${what} did not happen within two minutes`);
}

for (const kernel of ['latest', 'lts']) {
  describe(`guest with the ${kernel} kernel`, () => {
    let guest: Guest;
    let folder: string;
    before(async () => {
      folder = mkdtempSync(join(tmpdir(), 'ghostbus-test-'));
      await writeFile(join(folder, 'from-host'), 'seen by both');
      const image = await ensureImage({ kernel, packages });
      const programs = await buildGuestPrograms({ image, buildPackages });
      const firmware = { path: '/lib/firmware/ghostbus/stub.bin', contents: Buffer.from([1, 2, 255]) };
      const consoleLogPath = join(folder, 'console');
      const extraFiles = [...programs, firmware];
      guest = await boot(kernel, { shareDir: folder, extraFiles, consoleLogPath, kernelArgs: ['hugepages=4'] });
    });
    after(async () => {
      await guest?.kill();
      await rm(folder, { recursive: true });
    });

    it('runs the kernel asked for, without a complaint in its log', async () => {
      const { kernelRelease } = await ensureImage({ kernel, packages });
      assert.equal((await output(guest, 'uname', '-r')).trim(), kernelRelease);
      assert.deepEqual(findKernelComplaints(await guest.dmesg()), []);
    });

    it("has the kernel's configuration beside where its kernel would be", async () => {
      const config = await output(guest, 'sh', '-c', 'cat /boot/config-$(uname -r)');
      assert.match(config, kernel === 'lts' ? /^# CONFIG_PCI_P2PDMA is not set$/m : /^CONFIG_PCI_P2PDMA=y$/m);
    });

    it('has its tracing where programs look for it, old ones and new ones', async () => {
      for (const folder of ['/sys/kernel/tracing', '/sys/kernel/debug/tracing']) {
        assert.match(await output(guest, 'cat', `${folder}/available_tracers`), /\bnop\b/);
      }
      assert.equal(await output(guest, 'findmnt', '-n', '-o', 'FSTYPE', '/sys/kernel/tracing'), 'tracefs\n');
    });

    it('has sudo for suites that call it, and says nothing of its own', async () => {
      const script = 'sudo -n -E -u root GHOST="a b" -- sh -c \'echo "$(id -u) $GHOST"\'';
      const { exitCode, stdout, stderr } = await guest.capture(['sh', '-c', script]);
      assert.deepEqual([exitCode, stdout.toString(), stderr.toString()], [0, '0 a b\n', '']);
    });

    it('has the huge pages that it was booted for', async () => {
      assert.match(await output(guest, 'cat', '/proc/meminfo'), /^HugePages_Total: +4$/m);
      assert.equal(await output(guest, 'findmnt', '-n', '-o', 'FSTYPE', '/dev/hugepages'), 'hugetlbfs\n');
    });

    it('has its console in a file', async () => {
      await output(guest, 'sh', '-c', 'echo said on the console > /dev/console');
      await eventually('the line in the file', () =>
        readFileSync(join(folder, 'console'), 'latin1').includes('said on the console'),
      );
    });

    it('tells exit status and signal apart', async () => {
      assert.deepEqual(await guest.run(['sh', '-c', 'exit 3']), { exitCode: 3, signal: undefined });
      assert.deepEqual(await guest.run(['sh', '-c', 'exit 137']), { exitCode: 137, signal: undefined });
      assert.deepEqual(await guest.run(['sh', '-c', 'kill -KILL $$']), { exitCode: undefined, signal: 9 });
      const { exitCode, stderr } = await guest.capture(['no-such-program']);
      assert.equal(exitCode, 127);
      assert.match(stderr.toString(), /no-such-program/);
    });

    it('passes arguments, environment and input as they are', async () => {
      const awkward = ['', ' two  words ', "it's", '"quoted"', '$HOME `id` \\n', 'ä€\n', '-x', '*'];
      assert.equal(await output(guest, 'printf', '%s|', ...awkward), awkward.map((word) => `${word}|`).join(''));
      const { stdout } = await guest.capture(['sh', '-c', 'printf %s "$GHOST"'], { env: { GHOST: 'a b=c' } });
      assert.equal(stdout.toString(), 'a b=c');
      const stdin = Buffer.from(Array.from({ length: 3000 }, (_, index) => (index * 7) & 0xff));
      assert.deepEqual((await guest.capture(['cat'], { stdin })).stdout, stdin);
    });

    it('brings large binary output over whole, and errors apart from it', async () => {
      const script = 'head -c 4000000 /dev/urandom > /tmp/r; cat /tmp/r; sha256sum < /tmp/r >&2';
      const { stdout, stderr } = await guest.capture(['sh', '-c', script]);
      assert.equal(stdout.length, 4_000_000);
      const { stdout: again } = await guest.capture(['sha256sum'], { stdin: stdout });
      assert.equal(again.toString(), stderr.toString());
    });

    it('streams output while the command runs', async () => {
      let seen = '';
      const fifo = '/tmp/go';
      await output(guest, 'mkfifo', fifo);
      const running = guest.run(['sh', '-c', `echo first; read word < ${fifo}; echo $word`], {
        onStdout: (chunk) => {
          seen += chunk;
        },
      });
      await eventually('the first line', () => seen === 'first\n');
      await guest.run(['sh', '-c', `echo second > ${fifo}`]);
      await running;
      assert.equal(seen, 'first\nsecond\n');
    });

    it('runs more commands at once than it has ports', async () => {
      const runs = Array.from({ length: 12 }, (_, index) => output(guest, 'echo', String(index)));
      assert.deepEqual(
        (await Promise.all(runs)).map((text) => text.trim()),
        Array.from({ length: 12 }, (_, index) => String(index)),
      );
    });

    it('does not wait for a daemon that a command leaves behind', async () => {
      assert.equal(await output(guest, 'sh', '-c', 'sleep 1000 & echo started'), 'started\n');
    });

    it('kills a command that takes too long, with all it has started', async () => {
      const run = guest.run(['sh', '-c', 'sleep 4321; true'], { timeoutMs: 500 });
      await assert.rejects(run, (error) => error instanceof GuestTimeoutError && /sleep 4321/.test(error.message));
      assert.deepEqual(await guest.run(['pgrep', '-f', '^sleep 4321']), { exitCode: 1, signal: undefined });
    });

    it('shares a folder both ways', async () => {
      assert.equal(await output(guest, 'cat', '/mnt/share/from-host'), 'seen by both');
      await output(guest, 'sh', '-c', 'printf hello > /mnt/share/from-guest');
      assert.equal(readFileSync(join(folder, 'from-guest'), 'utf8'), 'hello');
    });

    it('has the files and programs of this boot', async () => {
      assert.equal(await output(guest, 'od', '-An', '-tx1', '/lib/firmware/ghostbus/stub.bin'), ' 01 02 ff\n');
      assert.match(await output(guest, 'memtouch', '64'), /^ok 65536,/);
    });

    it('plugs and unplugs a device, and udev loads its driver', async () => {
      await guest.qmp('device_add', { driver: 'e1000e', id: 'late', bus: hotplugBus });
      const found = 'for i in $(seq 100); do ls /sys/bus/pci/drivers/e1000e/0000:* && exit; sleep 0.2; done; exit 1';
      await output(guest, 'sh', '-c', found);
      await guest.unplug('late');
      assert.doesNotMatch(await output(guest, 'lspci', '-n'), /8086:10d3/);
    });

    it('joins a terminal with a shell', async () => {
      const typed = new PassThrough();
      const shown = new PassThrough();
      let text = '';
      shown.on('data', (chunk: Buffer) => {
        text += chunk;
      });
      const session = guest.console(typed as unknown as NodeJS.ReadStream, shown as unknown as NodeJS.WriteStream);
      typed.write('echo $((6 * 7)); tty\n');
      await eventually('the answer', () => /^42\r?\n\/dev\/hvc0/m.test(text));
      typed.write('exit\n');
      await session;
    });

    it('survives the end of its agent', async () => {
      await assert.rejects(guest.run(['sh', '-c', 'pkill -KILL qemu-ga; sleep 1000']), /agent ended/);
      assert.equal(await output(guest, 'echo', 'again'), 'again\n');
    });

    for (const how of ['guest', 'reset'] as const) {
      it(`comes back after a reboot (${how})`, async () => {
        await output(guest, 'touch', '/tmp/before');
        const lost = assert.rejects(guest.run(['sleep', '1000']), /reset while|agent ended/);
        await guest.reboot(how);
        await lost;
        assert.equal((await guest.run(['test', '-e', '/tmp/before'])).exitCode, 1);
        assert.equal(await output(guest, 'cat', '/mnt/share/from-host'), 'seen by both');
      });
    }

    it('powers off', async () => {
      await guest.shutdown();
      assert.equal(await guest.ended, undefined);
      assert.equal(processExists(guest.qemuPid), false);
    });
  });
}

describe('a guest that goes wrong', () => {
  let guest: Guest | undefined;
  afterEach(() => guest?.kill());

  const endsWith = async (promise: Promise<unknown>, kind: new (...args: never[]) => GuestError, pattern: RegExp) => {
    await assert.rejects(promise, (error) => {
      assert.ok(error instanceof kind, `${error}`);
      assert.match((error as GuestError).message, pattern);
      return true;
    });
    assert.equal(processExists(guest!.qemuPid), false, 'no QEMU is left');
  };

  it('reports a panic with the console', async () => {
    guest = await boot('latest');
    const crash = guest.run(['sh', '-c', 'echo c > /proc/sysrq-trigger']);
    await assert.rejects(crash, GuestPanicError);
    assert.ok((await guest.ended) instanceof GuestPanicError);
    await endsWith(guest.run(['true']), GuestPanicError, /sysrq triggered crash/);
  });

  it('reports the end of QEMU', async () => {
    guest = await boot('latest');
    process.kill(guest.qemuPid, 'SIGKILL');
    await guest.ended;
    await endsWith(guest.run(['true']), QemuExitError, /SIGKILL/);
  });

  it('reports what QEMU says when it does not start', async () => {
    const functions = [{ id: 'nobody', socketPath: '/nonexistent/socket' }];
    await assert.rejects(boot('latest', { functions }), (error) => {
      assert.ok(error instanceof QemuExitError);
      assert.match(error.message, /nonexistent/);
      return true;
    });
  });

  it('does not start when its console cannot be written to a file', async () => {
    await assert.rejects(boot('latest', { consoleLogPath: '/no/such/folder/console' }), { code: 'ENOENT' });
  });

  it('goes on when the file of its console is full, and says so', async () => {
    const told: string[] = [];
    guest = await boot('latest', { consoleLogPath: '/dev/full', onProgress: (text) => told.push(text) });
    await output(guest, 'sh', '-c', 'echo said on the console > /dev/console');
    await eventually('the message', () => told.some((text) => /no longer written to \/dev\/full: ENOSPC/.test(text)));
    assert.equal(await output(guest, 'echo', 'alive'), 'alive\n');
  });

  it('reports a guest that does not come up', async () => {
    const booting = boot('latest', { kernelArgs: ['rdinit=/bin/nothing', 'root=/dev/nothing'], bootTimeoutMs: 60_000 });
    await assert.rejects(booting, (error) => error instanceof GuestPanicError && /---/.test(error.message));
  });

  it('reports a guest whose kernel has its clock wrong', async () => {
    const counterKHz = await hostCounterKHz();
    assert.ok(counterKHz, 'this host has no counter that can be measured');
    // Of two such arguments the later one counts.
    const kernelArgs = [`tsc_early_khz=${counterKHz / 8}`];
    await assert.rejects(boot('latest', { counterKHz, kernelArgs }), (error) => {
      assert.ok(error instanceof GuestClockError, `${error}`);
      assert.match(error.message, /clock runs at least [1-8]\.\d times too fast/);
      return true;
    });
  });

  it('reports a guest that hangs', async () => {
    guest = await boot('latest', { agentTimeoutMs: 5_000 });
    await assert.rejects(guest.run(['sh', '-c', 'pkill -STOP qemu-ga; sleep 1000']), GuestTimeoutError);
    await endsWith(guest.run(['true']), GuestTimeoutError, /hung guest/);
  });

  it('reports a guest that takes too long', async () => {
    await assert.rejects(boot('latest', { bootTimeoutMs: 1_000 }), GuestTimeoutError);
  });

  it('leaves no QEMU when this process is killed', async () => {
    const index = fileURLToPath(new URL('../../qemu/index.js', import.meta.url));
    const script = `
      import { bootGuest, ensureImage, findQemu } from '${index}';
      const image = await ensureImage({ kernel: 'latest', packages: ${JSON.stringify(packages)} });
      const guest = await bootGuest({ qemu: await findQemu(), image, accel: 'tcg' });
      console.log(guest.qemuPid);
      await guest.ended;
    `;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const pid = Number((await once(child.stdout, 'data'))[0]);
    assert.ok(processExists(pid));
    child.kill('SIGKILL');
    await eventually('the end of QEMU', () => !processExists(pid));
  });
});
