/**
 * Faults on demand under the stock mlx5 drivers: what they say, that they recover, and that no byte is wrong
 * afterwards.
 */
import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import {
  type AllowedComplaint,
  assertCleanKernelLog,
  type Emulator,
  type Guest,
  KERNELS,
  sh,
  withMachine,
} from 'ghostbus/session';
import {
  driverReady,
  GUEST_SCRIPTS,
  pingPong,
  portsActive,
  RDMA_GUEST,
  rdmaDeviceNames,
  untilTrue,
} from './guest-kit.js';

/** Probabilities per packet. */
const WEATHER = { loss: 0.02, corruption: 0.01, duplication: 0.02, reordering: 0.02 };
const CLEAR = { loss: 0, corruption: 0, duplication: 0, reordering: 0 };

/** include/linux/mlx5/device.h MLX5_CMD_STAT_LIM_ERR. */
const LIMIT_EXCEEDED = 8;

const ASKED_FOR: readonly AllowedComplaint[] = [
  {
    pattern: /mlx5_core .*ALLOC_PD\(0x800\) (No done completion|timeout\. Will cause a leak)/,
    reason: 'core/cmd.c wait_func: the test asked for a command without an answer',
  },
  {
    pattern: /mlx5_core .*Command completion arrived after timeout/,
    reason: 'core/cmd.c mlx5_cmd_comp_handler: the test answered it late',
  },
  {
    pattern: /mlx5_core .*: (health|device's health|poll_health|mlx5_health|print_health_info|E-Switch|mlx5_\w+:\d+:)/,
    reason: 'core/health.c: the test asked for firmware that fails',
  },
];

/** Both ends of what a test does: the two functions, and the guest's names of them. */
interface Ends {
  readonly guest: Guest;
  readonly emulator: Emulator;
  readonly functions: readonly [string, string];
  readonly devices: readonly [string, string];
}

async function kernelSays(guest: Guest, pattern: string): Promise<void> {
  await sh(guest, untilTrue(`dmesg | grep -q ${JSON.stringify(pattern)}`));
}

/**
 * A program that asks for a protection domain and gets no answer; the driver gives up after its 60 seconds. It keeps
 * the slot until a late answer: without one, recovery and shutdown would wait for that slot for ever (core/cmd.c
 * mlx5_cmd_flush).
 */
async function startUnansweredCommand({ guest, emulator, functions: [name], devices: [device] }: Ends): Promise<void> {
  await emulator.control(name, 'swallow-command', { command: 'ALLOC_PD', count: 1 });
  await sh(
    guest,
    `setsid sh -c 'ibv_rc_pingpong -d ${device} -g 0 >/tmp/unanswered 2>&1; echo ended $? >>/tmp/unanswered' >/dev/null 2>&1 &`,
  );
  await commandArrives(emulator, name, 'ALLOC_PD');
}

/** Resolves once the adapter has swallowed it, as its own list of faults says. */
async function commandArrives(emulator: Emulator, name: string, command: string): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    const { swallowed } = (await emulator.control(name, 'faults')) as { swallowed: Record<string, number> };
    if (swallowed[command] === 1) return;
    await setTimeout(100);
  }
  assert.fail(`${name} was never asked for ${command}`);
}

async function unansweredCommandFails({ guest, emulator, functions: [name] }: Ends): Promise<void> {
  for (let tries = 0; tries < 3; tries++) {
    const { exitCode } = await guest.capture(['sh', '-c', untilTrue('grep -q ended /tmp/unanswered')]);
    if (exitCode === 0) break;
  }
  const text = await sh(guest, 'cat /tmp/unanswered');
  assert.match(text, /Couldn't allocate PD[\s\S]*ended 1/);
  await kernelSays(guest, 'ALLOC_PD(0x800) timeout');
  assert.equal(await emulator.control(name, 'answer-late'), 1);
  await kernelSays(guest, 'Command completion arrived after timeout');
}

async function refusedCommandFails({ guest, emulator, functions, devices: [, device] }: Ends): Promise<void> {
  await emulator.control(functions[1], 'refuse-command', { command: 'ALLOC_PD', status: LIMIT_EXCEEDED, count: 1 });
  await sh(
    guest,
    `! ibv_rc_pingpong -d ${device} -g 0 >/tmp/refused 2>&1; grep -q "Couldn't allocate PD" /tmp/refused`,
  );
  await kernelSays(guest, 'ALLOC_PD(0x800) op_mod(0x0) failed, status limits exceeded(0x8), syndrome (0x800)');
}

/** Once because software posts more than it takes, once because the test says so. */
async function completionQueuesOverrun({ guest, emulator, functions, devices }: Ends): Promise<void> {
  const script = 'python3 -B /mnt/share/rdma-cq-overrun.py';
  assert.match(await sh(guest, `timeout 120 ${script} ${devices[0]}`), /^completion queue error$/m);
  await sh(
    guest,
    `setsid ${script} ${devices[1]} asked >/tmp/overrun 2>&1 &\n${untilTrue('grep -q ready /tmp/overrun')}`,
  );
  const { completionQueues } = (await emulator.control(functions[1], 'queues')) as {
    completionQueues: { cqn: number; size: number }[];
  };
  const size = Number(/ready (\d+)/.exec(await sh(guest, 'cat /tmp/overrun'))![1]);
  const { cqn } = completionQueues.filter((queue) => queue.size === size).at(-1)!;
  await emulator.control(functions[1], 'overrun-cq', { cqn });
  await sh(guest, untilTrue("grep -q '^completion queue error$' /tmp/overrun"));
  await kernelSays(guest, `CQ error on CQN 0x${cqn.toString(16)}, syndrome 0x1`);
}

/** Data are compared by the programs themselves: each byte of every message, and that atomics happen once. */
async function trafficSurvivesWeather({ guest, emulator, functions, devices }: Ends): Promise<void> {
  const before = await hardwareCounters(guest);
  for (const [index, name] of functions.entries()) {
    await emulator.control(name, 'wire-faults', { ...WEATHER, seed: 40 + index });
  }
  await pingPong(guest, 'ibv_rc_pingpong -c -s 16384 -m 1024', devices[0], devices[1]);
  await sh(guest, `timeout 300 python3 -B /mnt/share/rdma-dmabuf.py ${devices.join(' ')} udmabuf`);
  for (const name of functions) {
    const { weather } = (await emulator.control(name, 'faults')) as { weather: Record<string, number> };
    for (const fate of ['arrives', 'lost', 'corrupted', 'duplicated', 'reordered']) {
      assert.ok(weather[fate]! > 0, `${name}: no packet ${fate}: ${JSON.stringify(weather)}`);
    }
    await emulator.control(name, 'wire-faults', CLEAR);
  }
  const after = await hardwareCounters(guest);
  for (const counter of ['out_of_sequence', 'packet_seq_err', 'local_ack_timeout_err', 'duplicate_request']) {
    assert.ok(after.get(counter)! > before.get(counter)!, `${counter} counts what was sent again`);
  }
}

/** The driver's counters of retransmissions, summed over both adapters. */
async function hardwareCounters(guest: Guest): Promise<Map<string, number>> {
  const text = await sh(guest, 'cd /sys/class/infiniband; grep -H . */ports/1/hw_counters/*');
  const sums = new Map<string, number>();
  for (const [, name, value] of text.matchAll(/hw_counters\/(\w+):(\d+)$/gm)) {
    sums.set(name!, (sums.get(name!) ?? 0) + Number(value));
  }
  return sums;
}

async function cableIsFollowed({ guest, emulator, functions: [name], devices: [device] }: Ends): Promise<void> {
  await sh(guest, `setsid ibv_asyncwatch -d ${device} >/tmp/events 2>&1 &\n${untilTrue('grep -q async /tmp/events')}`);
  const state = `/sys/class/infiniband/${device}/ports/1/state`;
  await emulator.control(name, 'link', { state: 'down' });
  await sh(guest, untilTrue(`grep -q DOWN ${state} && grep -q PORT_ERR /tmp/events`));
  await emulator.control(name, 'link', { state: 'up' });
  await sh(guest, untilTrue(`grep -q ACTIVE ${state} && grep -q PORT_ACTIVE /tmp/events`));
  await sh(guest, 'pkill -x ibv_asyncwatch');
}

async function firmwareRecovers({ guest, emulator, functions: [name] }: Ends): Promise<void> {
  await emulator.control(name, 'fatal-health', {});
  await kernelSays(guest, 'health recovery succeeded');
  await driverReady(guest, 2);
  await portsActive(guest, 2);
}

describe('rdma: faults on demand', () => {
  for (const kernel of KERNELS) {
    it(`${kernel}: the drivers notice, say so and recover; retransmission brings every byte; a reboot starts afresh`, async () => {
      await withMachine({ kernel, devices: ['rdma,functions=2'], ...RDMA_GUEST }, async ({ boot, emulator }) => {
        const guest = await boot({ shareDir: GUEST_SCRIPTS });
        await driverReady(guest, 2);
        await portsActive(guest, 2);
        const devices = (await rdmaDeviceNames(guest)) as [string, string];
        const functions = emulator.functions.map(({ name }) => name) as [string, string];
        const ends: Ends = { guest, emulator, functions, devices };
        await startUnansweredCommand(ends);
        await refusedCommandFails(ends);
        await completionQueuesOverrun(ends);
        await cableIsFollowed(ends);
        await pingPong(guest, 'ibv_rc_pingpong -c', ...devices);
        await trafficSurvivesWeather(ends);
        await unansweredCommandFails(ends);
        await firmwareRecovers(ends);
        await pingPong(guest, 'ibv_rc_pingpong -c', ...devices);
        await assertCleanKernelLog(guest, ASKED_FOR);
        await guest.reboot('guest');
        await driverReady(guest, 2);
        await portsActive(guest, 2);
        await pingPong(guest, 'ibv_rc_pingpong -c', ...devices);
        await assertCleanKernelLog(guest);
      });
    });
  }
});
