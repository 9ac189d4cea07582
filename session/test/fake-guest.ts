/** An emulator and a guest that only pretend, for specs of what surrounds them. */
import { EventEmitter } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Emulator, EmulatorOptions, FunctionState } from '../../emulator/emulator.js';
import { emptyTransferCounters } from '../../emulator/memory/counters.js';
import type { BootOptions, Guest, RunOptions, RunResult } from '../../qemu/index.js';
import type { SignalSource } from '../cleanup.js';
import type { SessionTools } from '../session.js';

const SERVER: FunctionState['server'] = {
  connected: true,
  connections: 1,
  commands: {},
  longestBatch: 1,
  queuedBytes: 0,
  dmaMapsWithoutFile: 0,
  dmaMessages: { reads: 0, writes: 0, failures: 0 },
  unexpectedReplies: 0,
};

export const COUNTER_KHZ = 2_445_000;

export function fakeState(name: string): FunctionState {
  const counters = {
    guestMemory: emptyTransferCounters(),
    messages: emptyTransferCounters(),
    peers: {},
    links: {},
    interrupts: {},
    failedRequests: 0,
  };
  return { name, connected: true, counters, barAddresses: {}, server: SERVER, model: { of: name } };
}

export interface FakeBehaviour {
  /** What the command in the guest does. */
  run?(argv: readonly string[], options: RunOptions): Promise<RunResult>;
  boot?(options: BootOptions): Promise<void>;
  /** Functions that a driver of the guest's has not taken. */
  readonly unbound?: readonly string[];
}

/** Tools that record what was asked of them and in which order things ended. */
export class FakeTools {
  readonly events: string[] = [];
  boots: BootOptions[] = [];
  /** Machines that were made to be restored. */
  readonly kept: BootOptions[] = [];
  failEmulator: (error: Error) => void = () => undefined;
  readonly tools: SessionTools;

  constructor(behaviour: FakeBehaviour = {}) {
    this.tools = {
      startEmulator: (options) => this.#startEmulator(options),
      findQemu: async () => ({ command: ['qemu'], version: '10.1.0', source: 'path' }),
      ensureImage: async ({ kernel }) => ({
        kernelPath: '/k',
        kernelRelease: '7.0-fake',
        kernel,
        initrdPath: '/i',
        userlandPath: '/u',
        modulesPath: '/m',
      }),
      buildGuestPrograms: async () => [{ path: '/usr/local/bin/program', contents: new Uint8Array(1) }],
      hostCounterKHz: async () => COUNTER_KHZ,
      ensureWarmMachine: async (options) => {
        this.kept.push(options);
        await behaviour.boot?.(options);
      },
      bootGuest: async (options) => {
        this.boots.push(options);
        await behaviour.boot?.(options);
        return this.#guest(behaviour, options);
      },
    };
  }

  async #startEmulator(options: EmulatorOptions): Promise<Emulator> {
    const directory = options.socketDirectory ?? mkdtempSync(join(tmpdir(), 'ghostbus-spec-'));
    const names = options.devices.map(({ plugin }, index) => `${plugin.name}${index}`);
    const ended = new Promise<void>((_, reject) => {
      this.failEmulator = reject;
    });
    ended.catch(() => undefined);
    const emulator: Partial<Emulator> = {
      functions: names.map((name) => ({
        name,
        plugin: name,
        identity: { vendorId: 1, deviceId: 2, subsystemVendorId: 3, subsystemId: 4, classCode: 5, revisionId: 6 },
        socketPath: join(directory, `${name}.sock`),
        barBytes: { prefetchable: 0, other: 0 },
      })),
      socketDirectory: directory,
      ended,
      state: async () => names.map(fakeState),
      stateOf: async (name) => fakeState(name),
      stop: async () => void this.events.push('emulator stopped'),
    };
    return emulator as Emulator;
  }

  #guest({ unbound = [], ...behaviour }: FakeBehaviour, { functions = [] }: BootOptions): Guest {
    const look = functions.map(({ id }, index) =>
      unbound.includes(id) ? `unbound 0000:0${index}:00.0 0001:0002 driver\n` : `bound 0000:0${index}:00.0 0001:0002\n`,
    );
    const guest: Partial<Guest> = {
      accel: 'tcg',
      bootTimeMs: 1,
      qemuPid: 0,
      run: async (argv, options = {}) => (await behaviour.run?.(argv, options)) ?? { exitCode: 0, signal: undefined },
      capture: async () => ({
        exitCode: 0,
        signal: undefined,
        stdout: Buffer.from(look.join('')),
        stderr: Buffer.alloc(0),
      }),
      settle: async () => undefined,
      dmesg: async () => '[    1.0] driver 0000:00:00.0: probe failed',
      kill: async () => void this.events.push('guest killed'),
    };
    return guest as Guest;
  }
}

/** Signals and exits of a process that a spec controls. */
export class FakeProcess extends EventEmitter implements SignalSource {
  readonly exits: number[] = [];

  exit(status: number): void {
    this.exits.push(status);
  }
}
