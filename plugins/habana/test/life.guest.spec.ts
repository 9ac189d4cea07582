/** The Gaudi's comings and goings under the stock habanalabs driver: `npm run test:guest`. */
import assert from 'node:assert/strict';
import {
  assertCleanKernelLog,
  type Emulator,
  type Guest,
  guestAddresses,
  KERNELS,
  sh,
  withMachine,
} from 'ghostbus/session';
import { logged, operational, passes, resets, UNBINDING, withHabana } from './guest-kit.js';

/**
 * Each ends with the card at work again. The driver makes a hard reset of its own after a function-level reset
 * (hl_pci_reset_done), and of its files in debugfs the one that sets whether engines stop on errors
 * (hl_stop_on_err_write).
 */
async function goThroughResets(guest: Guest, address: string, index: number): Promise<void> {
  const driver = '/sys/bus/pci/drivers/habanalabs';
  const card = `/sys/bus/pci/devices/${address}`;
  await sh(guest, `echo ${address} > ${driver}/unbind; echo ${address} > ${driver}/bind`);
  await operational(guest, 'Operational', index);
  await sh(guest, `echo 1 > ${card}/reset`);
  await resets(guest, 1, index);
  await sh(guest, `echo 1 > ${card}/hard_reset`);
  await resets(guest, 2, index);
  await sh(guest, `echo 1 > /sys/kernel/debug/accel/${address}/stop_on_err`);
  await resets(guest, 3, index);
  assert.equal(await sh(guest, `cat ${card}/hard_reset_cnt`), '3\n');
}

interface Card {
  readonly address: string;
  /** Of `/dev/accel/accelN`; the driver numbers cards in the order in which their probes come to it. */
  readonly index: number;
}

async function cardsOf(guest: Guest, emulator: Emulator): Promise<[Card, Card]> {
  const addresses = await guestAddresses(guest, emulator);
  const cards: Card[] = [];
  for (const name of ['habana0', 'habana1']) {
    const address = addresses.get(name)!;
    const index = Number((await sh(guest, `cd /sys/bus/pci/devices/${address}/accel; echo accel*`)).slice(5));
    cards.push({ address, index });
  }
  return cards as [Card, Card];
}

for (const kernel of KERNELS) {
  describe(`habana without the workaround, kernel ${kernel}`, () => {
    it('reloads 20 times; its node cannot be opened', async () => {
      await withMachine({ kernel, devices: ['habana'], workarounds: false }, async ({ emulator, log, boot }) => {
        const guest = await boot();
        await sh(guest, 'for i in $(seq 20); do rmmod habanalabs; modprobe habanalabs; done');
        await operational(guest);
        assert.equal(await sh(guest, 'dmesg | grep -c "Successfully added device"'), '21\n');
        await assertCleanKernelLog(guest, [UNBINDING]);
        const { exitCode, stderr } = await guest.capture(['hl-test']);
        assert.equal(exitCode, 1);
        assert.match(stderr.toString(), /cannot open .*: Invalid argument/);
        assert.equal((await emulator.stateOf('habana0')).broken, undefined);
        assert.deepEqual(log.complaints, []);
      });
    });

    it('stays out when its firmware does not boot, and comes when it does', async () => {
      const devices = ['habana,failBoot=boot-fit'];
      await withMachine({ kernel, devices, workarounds: false }, async ({ emulator, boot }) => {
        const guest = await boot();
        // The driver leaves the nodes of a card that it gave up (hl_device_init, expose_interfaces_on_err).
        await sh(guest, 'modprobe habanalabs');
        await logged(guest, 'is NOT usable');
        await operational(guest, 'Disabled');
        await emulator.control('habana0', 'fail-boot', { stage: 'none' });
        await guest.reboot('reset');
        await sh(guest, 'modprobe habanalabs');
        await operational(guest);
      });
    });
  });

  describe(`habana, life of two cards, kernel ${kernel}`, () => {
    it('an open and a secured one at once, unbind and bind, FLR, hard resets, reboot', async () => {
      await withHabana(kernel, ['habana', 'habana,profile=secured,hbm=4G'], async ({ emulator }, guest) => {
        const [open, secured] = await cardsOf(guest, emulator);
        for (const { index } of [open, secured]) await operational(guest, 'Operational', index);
        const security = '/sys/class/accel/accel*/device/security_enabled';
        assert.equal(await sh(guest, `grep -l 1 ${security}`), `${security.replace('*', String(secured.index))}\n`);
        assert.match(
          await sh(guest, 'hl-test 0 1 & first=$!; hl-test 1 1 && wait $first'),
          /# 0 failed[\s\S]*# 0 failed/,
        );
        await goThroughResets(guest, open.address, open.index);
        await operational(guest, 'Operational', secured.index);
        await sh(guest, `echo 1 > /sys/bus/pci/devices/${secured.address}/hard_reset`);
        await resets(guest, 4, secured.index);
        await emulator.control('habana1', 'ecc', { block: 'hbm1', correctable: false, address: 64, syndrome: 3 });
        await resets(guest, 5, secured.index);
        for (const { index } of [open, secured]) await passes(guest, `hl-test ${index} 1`);
        await guest.reboot('guest');
        await sh(guest, 'modprobe habanalabs');
        for (const { index } of [open, secured]) await operational(guest, 'Operational', index);
        await passes(guest, 'hl-test 0 1');
      });
    });
  });
}
