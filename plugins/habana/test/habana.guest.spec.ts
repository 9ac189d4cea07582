/** The Gaudi under the stock habanalabs driver, what it does and what it reports: `npm run test:guest`. */
import assert from 'node:assert/strict';
import { type AllowedComplaint, assertCleanKernelLog, type Emulator, type Guest, KERNELS, sh } from 'ghostbus/session';
import {
  ask,
  cardComesTo,
  cardState,
  filesOf,
  logged,
  operational,
  passes,
  resets,
  UNBINDING,
  withHabana,
} from './guest-kit.js';

const MIB = 2 ** 20;

const COLLECTIVE: AllowedComplaint = {
  pattern: /Collective operations not supported when NIC ports are disabled/,
  reason: 'hl-test tries one and expects the refusal',
};

/**
 * drivers/accel/habanalabs/common/hwmon.c shows what the card lists: millivolts, milliamperes, millidegrees,
 * microwatts.
 */
const SENSORS = {
  name: 'HL205',
  temp1_input: '51000',
  temp1_max: '95000',
  temp1_crit: '105000',
  temp2_input: '53000',
  temp2_max: '95000',
  temp2_crit: '105000',
  in0_input: '12000',
  in0_min: '10800',
  in0_max: '13200',
  in1_input: '850',
  in1_min: '600',
  in1_max: '1000',
  curr1_input: '5000',
  curr1_min: '0',
  curr1_max: '35000',
  power1_input: '60000000',
};

/**
 * Every readable attribute of the driver's groups: common/sysfs.c hl_dev_attrs, hl_dev_clk_attrs; gaudi.c
 * gaudi_vrm_dev_attrs.
 */
const ATTRIBUTES = {
  armcp_kernel_ver: 'Linux version 5.10.18-hl-gaudi-1.0.0-fw-58.2.1-sec-9 (ghostbus)',
  armcp_ver: 'hl-gaudi-1.0.0-fw-58.2.1-sec-9',
  clk_cur_freq_mhz: '2200',
  clk_max_freq_mhz: '2200',
  cpld_ver: '0x000000000000000f',
  cpucp_kernel_ver: 'Linux version 5.10.18-hl-gaudi-1.0.0-fw-58.2.1-sec-9 (ghostbus)',
  cpucp_ver: 'hl-gaudi-1.0.0-fw-58.2.1-sec-9',
  device_type: 'GAUDI',
  eeprom: 'ghostbus emulated card, serial number GB00000000',
  fuse_ver: '00P0-HL2000A0-00-P00X00-00-00-00',
  fw_os_ver: 'ghostbus',
  hard_reset_cnt: '0',
  infineon_ver: '0x0b',
  max_power: '350000',
  module_id: '5',
  parent_device: '0000:01:00.0',
  pci_addr: '0000:01:00.0',
  preboot_btl_ver: 'BTL version 1.0.0 Preboot version hl-gaudi-1.0.0-fw-58.2.1-sec-9 (ghostbus)',
  security_enabled: '0',
  status: 'Operational',
  thermal_ver: 'hl-gaudi-1.0.0-fw-58.2.1-sec-9',
  uboot_ver: 'U-Boot 2021.04-hl-gaudi-1.0.0-fw-58.2.1-sec-9 (ghostbus)',
};

/** Reports after which the card goes on working, and the driver's words for them (gaudi.c gaudi_handle_eqe). */
const REPORTS: readonly (readonly [command: string, args: Record<string, unknown>, words: string])[] = [
  ['ecc', { block: 'hbm0', correctable: true, address: 4096, syndrome: 1 }, 'ECC error detected. address: 0x1000'],
  ['ecc', { block: 'mmu', correctable: true, address: 8192, syndrome: 1 }, 'ECC error detected. address: 0x2000'],
  ['thermal', { state: 'start' }, 'Clock throttling due to overheating'],
  ['thermal', { state: 'end' }, 'Thermal envelop is safe, back to optimal clock'],
  ['power', { state: 'start' }, 'Clock throttling due to power consumption'],
  ['power', { state: 'end' }, 'Power envelop is safe, back to optimal clock'],
  ['overheat', { cause: 3 }, 'Received high temp H/W interrupt 421 (cause 3)'],
  ['page-fault', { address: 0x1000000abc000 }, 'MMU page fault on va 0x1000000abc000'],
  ['qman-error', { engine: 'DMA3', stream: 2, cause: 1 << 9 }, 'FENCE 1 inc over max value and clipped'],
  ['tpc-error', { index: 2, cause: 1 << 1 }, 'TPC2_KRN_ERR interrupt cause:'],
];

/**
 * The driver's debugfs reads HBM through its BAR and by a DMA engine that it starts by hand (gaudi_debugfs_read_dma),
 * and fills all of it in the same way (gaudi_scrub_device_dram).
 */
async function checkDebugfs(guest: Guest, emulator: Emulator): Promise<void> {
  const first = 0x20000000;
  const folder = 'cd /sys/kernel/debug/accel/0000:01:00.0';
  const readByDma = `echo 0x${first.toString(16)} > addr; echo ${(4 * MIB).toString(16)} > dma_size`;
  const pairs = await sh(
    guest,
    `${folder}; ${readByDma}
     for offset in $(seq 0 ${MIB / 4 + 4} ${4 * MIB - 4}); do
       printf '0x%x' $((${first} + offset)) > addr; echo $(cat data32) 0x$(od -An -tx4 -j $offset -N4 data_dma | tr -d ' ')
     done`,
  );
  const words = pairs
    .trim()
    .split('\n')
    .map((line) => line.split(' '));
  for (const [throughBar, byDma] of words) assert.equal(throughBar, byDma);
  assert.ok(words.filter(([word]) => word !== '0x00000000').length > words.length / 2, pairs);
  assert.ok((await cardState(emulator)).hbmAllocatedBytes > 16 * MIB);
  const left = `${folder}; echo 0 > memory_scrub_val; echo 1 > memory_scrub; ${readByDma}; tr -d '\\0' < data_dma | wc -c`;
  assert.equal(await sh(guest, left), '0\n');
  assert.ok((await cardState(emulator)).hbmAllocatedBytes < 16 * MIB, 'filling with zeros gives the memory back');
}

for (const kernel of KERNELS) {
  describe(`habana, kernel ${kernel}`, () => {
    it('probes, shows sensors and attributes, moves data through every queue, and its heart beats', async () => {
      await withHabana(kernel, ['habana,temperature=51,cardLocation=5'], async ({ emulator, log }, guest) => {
        await logged(guest, 'Successfully added device 0000:01:00.0 to habanalabs driver');
        const card = '/sys/class/accel/accel0/device';
        assert.deepEqual(
          await filesOf(guest, `${card}/hwmon/hwmon*`, 'name', 'temp*', 'in[0-9]*', 'curr*', 'power*_*'),
          SENSORS,
        );
        assert.deepEqual(await filesOf(guest, card, ...Object.keys(ATTRIBUTES)), ATTRIBUTES);
        assert.equal(await sh(guest, 'cd /dev/accel; echo *'), 'accel0 accel_controlD0\n');
        const { cpuTests } = await cardState(emulator);
        await passes(guest, 'hl-test 0 16');
        await checkDebugfs(guest, emulator);
        await cardComesTo(guest, emulator, 'a heartbeat', (state) => state.cpuTests > cpuTests);
        await assertCleanKernelLog(guest, [UNBINDING, COLLECTIVE]);
        assert.equal((await emulator.stateOf('habana0')).broken, undefined);
        assert.deepEqual((await cardState(emulator)).unimplemented, []);
        assert.deepEqual(log.complaints, []);
        await guest.shutdown();
      });
    });

    it('goes on after what it reports, and recovers from faults, stuck engines and time-outs', async () => {
      await withHabana(kernel, ['habana'], async ({ emulator }, guest) => {
        const before = await cardState(emulator);
        for (const [command, args, words] of REPORTS) {
          await ask(emulator, command, args);
          await logged(guest, words);
        }
        // The driver asks for more of each, but for high temperature (gaudi_handle_eqe).
        const unmasked = before.events.unmasked + REPORTS.length - 1;
        await cardComesTo(guest, emulator, 'every unmasking', ({ events }) => events.unmasked === unmasked);
        assert.equal((await cardState(emulator)).resets, before.resets, 'none of these resets the card');
        await operational(guest);
        await passes(guest, 'hl-fault undefined-opcode');
        await passes(guest, 'hl-fault page-fault');
        await logged(guest, 'MMU page fault on va 0x1234567890000');
        await resets(guest, 1);
        await passes(guest, 'hl-fault timeout');
        await resets(guest, 2);
        await ask(emulator, 'stick', { engine: 'DMA1' });
        await passes(guest, 'hl-fault stuck');
        await resets(guest, 3);
        await ask(emulator, 'event', { type: 'PLL0' });
        await logged(guest, 'Received H/W interrupt 239');
        await resets(guest, 4);
        await passes(guest, 'hl-test 0 1');
      });
    });

    it('is reset for each fatal error, and given up by the driver after two in a row', async () => {
      await withHabana(kernel, ['habana'], async ({ emulator }, guest) => {
        await ask(emulator, 'out-of-sync', { pi: 1, ci: 2 });
        await logged(guest, 'Out of sync with FW, FW: pi=1, ci=2');
        await resets(guest, 1);
        await ask(emulator, 'reset-request');
        await resets(guest, 2);
        await ask(emulator, 'watchdog');
        await logged(guest, 'FW alive report: severity=Critical, process_id=1, thread_id=1, uptime=60 seconds');
        await resets(guest, 3);
        await ask(emulator, 'heartbeat', { answers: false });
        await logged(guest, 'heartbeat failed!');
        await resets(guest, 4);
        await passes(guest, 'hl-test 0 1');
        await ask(emulator, 'ecc', { block: 'hbm1', correctable: false, address: 64, syndrome: 3 });
        await resets(guest, 5);
        await ask(emulator, 'event', { type: 'PLL0' });
        await logged(guest, 'Consecutive fatal errors, stopping hard reset');
        await operational(guest, 'Disabled');
      });
    });
  });
}
