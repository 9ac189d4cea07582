/** What the guest specs of the Gaudi share: a booted card, and waiting for what its driver says. */
import assert from 'node:assert/strict';
import {
  type AllowedComplaint,
  type Emulator,
  type Guest,
  type Kernel,
  type MachineOptions,
  sh,
  type TestMachine,
  withMachine,
} from 'ghostbus/session';

export const UNBINDING: AllowedComplaint = {
  pattern: /habanalabs [0-9a-f:.]+: Waiting for all processes to exit \(timeout of/,
  reason: 'drivers/accel/habanalabs/common/device.c hl_device_fini announces at unbind how long it would wait',
};

interface HabanaOptions extends Partial<MachineOptions> {
  readonly boot?: Parameters<TestMachine['boot']>[0];
}

/** Boots a guest with `devices`, the workaround for the driver's defect, and a first card that works. */
export const withHabana = (
  kernel: Kernel,
  devices: readonly string[],
  use: (machine: TestMachine, guest: Guest) => Promise<void>,
  { boot = {}, ...more }: HabanaOptions = {},
) =>
  withMachine({ kernel, devices, ...more }, async (machine) => {
    const guest = await machine.boot(boot);
    await sh(guest, 'modprobe habanalabs');
    await operational(guest);
    await use(machine, guest);
  });

/** Waits until a card's driver says what it should. */
export async function operational(guest: Guest, wanted = 'Operational', card = 0): Promise<void> {
  const status = `/sys/class/accel/accel${card}/device/status`;
  await sh(
    guest,
    `for i in $(seq 300); do grep -qx '${wanted}' ${status} && exit 0; sleep 0.2; done; cat ${status}; exit 1`,
  );
}

/** Waits until the kernel's log has a line. */
export async function logged(guest: Guest, text: string): Promise<void> {
  await sh(
    guest,
    `for i in $(seq 200); do dmesg | grep -qF '${text}' && exit 0; sleep 0.2; done; dmesg | tail -20; exit 1`,
  );
}

/** Waits until the driver has reset cards so often, and a card works again. */
export async function resets(guest: Guest, count: number, card = 0): Promise<void> {
  const done = `dmesg | grep -c "Successfully finished resetting" | grep -qx ${count}`;
  await sh(guest, `for i in $(seq 250); do ${done} && exit 0; sleep 0.2; done; dmesg | tail -20; exit 1`);
  await operational(guest, 'Operational', card);
}

/** Runs one of the programs that print KTAP and end with how many cases failed. */
export async function passes(guest: Guest, command: string): Promise<void> {
  assert.match(await sh(guest, command), /^# 0 failed$/m);
}

/** `ghostbus ctl habana0 COMMAND`. */
export async function ask(emulator: Emulator, command: string, args: Record<string, unknown> = {}): Promise<void> {
  await emulator.control('habana0', command, args);
}

export interface CardState {
  readonly firmware: string;
  readonly resets: number;
  readonly events: { readonly unmasked: number };
  /** How often the driver has tested the management processor: its heartbeat. */
  readonly cpuTests: number;
  readonly unimplemented: readonly unknown[];
  readonly hbmAllocatedBytes: number;
}

export async function cardState(emulator: Emulator): Promise<CardState> {
  return (await emulator.stateOf('habana0')).model as CardState;
}

/** Waits until the card has come to what the driver does sooner or later. */
export async function cardComesTo(
  guest: Guest,
  emulator: Emulator,
  what: string,
  isReached: (state: CardState) => boolean,
): Promise<void> {
  for (let tries = 0; !isReached(await cardState(emulator)); tries++) {
    assert.ok(tries < 600, `never came: ${what}`);
    await sh(guest, 'sleep 0.1');
  }
}

/** Files of a folder in the guest with their contents, for the names that match a shell pattern. */
export async function filesOf(guest: Guest, folder: string, ...patterns: string[]): Promise<Record<string, string>> {
  const listed = await sh(
    guest,
    `cd ${folder}; for f in ${patterns.join(' ')}; do echo "$f=$(tr -d '\\0' < $f)"; done`,
  );
  return Object.fromEntries(
    listed
      .trim()
      .split('\n')
      .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  );
}
