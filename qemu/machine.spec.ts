import assert from 'node:assert/strict';
import { type MachineOptions, machineArgs } from './machine.js';
import { layOutFunctions } from './topology.js';

function commandLine(options: Partial<MachineOptions>): string[] {
  const args = machineArgs({
    image: {
      kernelPath: '/kernel',
      kernelRelease: '7.0',
      kernel: 'latest',
      initrdPath: '/initrd',
      userlandPath: '/userland',
      modulesPath: '/modules',
    },
    layout: layOutFunctions([]),
    accel: 'tcg',
    cpu: 'EPYC',
    memMiB: 2048,
    smp: 2,
    kernelArgs: [],
    ...options,
  });
  return args[args.indexOf('-append') + 1]!.split(' ');
}

describe("a guest kernel's command line", () => {
  const counterWords = (options: Partial<MachineOptions>) =>
    commandLine(options).filter((word) => word.startsWith('tsc_early_khz='));

  it('says how fast the counter runs that TCG gives it', () => {
    assert.deepEqual(counterWords({ counterKHz: 2_445_000 }), ['tsc_early_khz=2445000']);
  });

  it('says nothing of a counter that is not known, or is not the host’s', () => {
    assert.deepEqual(counterWords({}), []);
    assert.deepEqual(counterWords({ accel: 'kvm', counterKHz: 2_445_000 }), []);
  });

  it('ends with what the user adds, which counts where something is said twice', () => {
    const words = commandLine({ counterKHz: 2_445_000, kernelArgs: ['tsc_early_khz=300000'] });
    assert.equal(words.at(-1), 'tsc_early_khz=300000');
  });
});
