/**
 * Events and faults on demand, for `ghostbus ctl` and for tests. Each is reported the way the hardware does: the
 * registers that the driver reads hold the cause, then comes the event.
 */

import { BOOT_FAILURES, type BootFailure } from './firmware/boot-failure.js';
import { EVENT_DATA_BYTES, eventOf, type FirmwareEvent } from './firmware/event-queue.js';
import { EVENT_TYPES, GAUDI_EVENT } from './firmware/events.js';

type Arguments = Readonly<Record<string, unknown>>;

/** What the commands act on. */
export interface FaultTarget {
  send(event: FirmwareEvent): void;
  /** A translation failed at this address. */
  pageFault(address: number): void;
  /** Sets an error bit of a stream and sends the engine's message. */
  qmanError(engine: string, stream: number, cause: number): void;
  /** TPC interrupt cause bits. */
  tpcError(index: number, cause: number): void;
  stick(engine: string, stuck: boolean): void;
  heartbeat(answers: boolean): void;
  failBoot(failure: BootFailure | undefined): void;
  sensor(kind: string, channel: number, value: number): void;
}

export const commands: Readonly<Record<string, string>> = {
  event: 'report event {type} (number, or a name such as PLL0), with up to 56 bytes {data} in hexadecimal',
  ecc: 'report an ECC error: {block} hbm0..hbm3 or mmu, {correctable} true or false, {address}, {syndrome}',
  'page-fault': 'report an MMU page fault at {address}',
  'qman-error': 'report an error of {engine} (for example DMA0), {stream} 0..4, {cause} as bits of GLBL_STS1',
  'tpc-error': 'report a kernel error of TPC {index} with {cause} as bits of TPC_INTR_CAUSE',
  thermal: 'report that thermal throttling {state} start or end',
  power: 'report that power throttling {state} start or end',
  overheat: 'report a high-temperature interrupt with {cause}',
  'out-of-sync': 'report that the CPU queue is out of sync, with {pi} and {ci}',
  'reset-request': 'report that the firmware asks for a reset of the device',
  watchdog: 'report that a process of the firmware died',
  heartbeat: '{answers} false: the management processor stops answering; true: it answers again',
  stick: '{engine} stops making progress; {stuck} false lets it go on',
  'fail-boot': `the next boots fail at {stage}: ${BOOT_FAILURES.join(', ')}; or none`,
  sensor: 'set what sensor {channel} of {kind} temperature, voltage, current or power measures to {value}',
};

/** @throws Error that says what is wrong with the command */
export function control(target: FaultTarget, command: string, args: Arguments): unknown {
  const run = handlers[command];
  if (run === undefined) {
    throw new Error(`unknown command ${JSON.stringify(command)}; known: ${Object.keys(commands).join(', ')}`);
  }
  run(target, args);
  return { command, ...args };
}

const handlers: Readonly<Record<string, (target: FaultTarget, args: Arguments) => void>> = {
  event: (target, args) => target.send({ type: eventType(args.type), data: hexadecimal(args.data) }),
  ecc: (target, args) => target.send(eccEvent(args)),
  'page-fault': (target, args) => target.pageFault(number(args, 'address', 0, 2 ** 50 - 1)),
  'qman-error': (target, args) =>
    target.qmanError(text(args, 'engine'), number(args, 'stream', 0, 4), number(args, 'cause', 1, 0xffff)),
  'tpc-error': (target, args) => target.tpcError(number(args, 'index', 0, 7), number(args, 'cause', 1, 0xfffff)),
  thermal: (target, args) =>
    target.send(eventOf(isStart(args) ? GAUDI_EVENT.FIX_THERMAL_ENV_S : GAUDI_EVENT.FIX_THERMAL_ENV_E)),
  power: (target, args) =>
    target.send(eventOf(isStart(args) ? GAUDI_EVENT.FIX_POWER_ENV_S : GAUDI_EVENT.FIX_POWER_ENV_E)),
  overheat: (target, args) => target.send(eventOf(GAUDI_EVENT.PSOC_GPIO_U16_0, number(args, 'cause', 0, 0xff))),
  // struct cpucp_pkt_sync_err
  'out-of-sync': (target, args) =>
    target.send(
      eventOf(GAUDI_EVENT.PKT_QUEUE_OUT_SYNC, number(args, 'pi', 0, 2 ** 32 - 1), number(args, 'ci', 0, 2 ** 32 - 1)),
    ),
  'reset-request': (target) => target.send(eventOf(GAUDI_EVENT.DEV_RESET_REQ)),
  // struct hl_eq_fw_alive: uptime, process, thread, severity critical
  watchdog: (target) => target.send(eventOf(GAUDI_EVENT.FW_ALIVE_S, 60, 0, 1, 1, 1)),
  heartbeat: (target, args) => target.heartbeat(truth(args, 'answers')),
  stick: (target, args) => target.stick(text(args, 'engine'), args.stuck === undefined || truth(args, 'stuck')),
  'fail-boot': (target, args) => target.failBoot(bootFailure(args)),
  sensor: (target, args) =>
    target.sensor(
      text(args, 'kind'),
      number(args, 'channel', 0, 127),
      number(args, 'value', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
    ),
};

/** struct hl_eq_ecc_data: address, syndrome, memory wrapper, is critical. */
function eccEvent(args: Arguments): FirmwareEvent {
  const block = text(args, 'block');
  const correctable = truth(args, 'correctable');
  const base = eccBlocks[block];
  if (base === undefined) throw new Error(`block must be one of ${Object.keys(eccBlocks).join(', ')}, not ${block}`);
  const data = new Uint8Array(EVENT_DATA_BYTES);
  const view = new DataView(data.buffer);
  view.setBigUint64(0, BigInt(number(args, 'address', 0, 2 ** 50 - 1, 0)), true);
  view.setBigUint64(8, BigInt(number(args, 'syndrome', 0, 2 ** 32 - 1, 0)), true);
  data[16] = 0;
  data[17] = correctable ? 0 : 1;
  return { type: correctable ? base.correctable : base.uncorrectable, data };
}

const eccBlocks: Readonly<Record<string, { correctable: number; uncorrectable: number }>> = {
  hbm0: { correctable: GAUDI_EVENT.HBM_0_SERR, uncorrectable: GAUDI_EVENT.HBM_0_DERR },
  hbm1: { correctable: GAUDI_EVENT.HBM_0_SERR + 1, uncorrectable: GAUDI_EVENT.HBM_0_DERR + 1 },
  hbm2: { correctable: GAUDI_EVENT.HBM_0_SERR + 2, uncorrectable: GAUDI_EVENT.HBM_0_DERR + 2 },
  hbm3: { correctable: GAUDI_EVENT.HBM_0_SERR + 3, uncorrectable: GAUDI_EVENT.HBM_0_DERR + 3 },
  mmu: { correctable: GAUDI_EVENT.MMU_SERR, uncorrectable: GAUDI_EVENT.MMU_DERR },
};

function eventType(value: unknown): number {
  const named = typeof value === 'string' ? GAUDI_EVENT[value as keyof typeof GAUDI_EVENT] : undefined;
  const type = named ?? Number(value);
  if (!Number.isInteger(type) || type < 0 || type >= EVENT_TYPES) {
    throw new Error(
      `type must be 0 to ${EVENT_TYPES - 1} or one of ${Object.keys(GAUDI_EVENT).join(', ')}, not ${JSON.stringify(value)}`,
    );
  }
  return type;
}

function hexadecimal(value: unknown): Uint8Array {
  const data = new Uint8Array(EVENT_DATA_BYTES);
  if (value === undefined) return data;
  if (typeof value !== 'string' || !/^([0-9a-f]{2})*$/i.test(value) || value.length > 2 * EVENT_DATA_BYTES) {
    throw new Error(`data must be at most ${EVENT_DATA_BYTES} bytes in hexadecimal, not ${JSON.stringify(value)}`);
  }
  data.set(Buffer.from(value, 'hex'));
  return data;
}

/** Numbers arrive as numbers or, from a command line, as text (also hexadecimal). */
function number(args: Arguments, key: string, min: number, max: number, fallback?: number): number {
  const value = args[key] ?? fallback;
  const parsed = typeof value === 'string' && value !== '' ? Number(value) : value;
  if (typeof parsed !== 'number' || !Number.isInteger(parsed) || parsed < min || parsed > max) {
    throw new Error(`${key} must be a whole number from ${min} to ${max}, not ${JSON.stringify(value)}`);
  }
  return parsed;
}

function text(args: Arguments, key: string): string {
  const value = args[key];
  if (typeof value !== 'string' || value === '') throw new Error(`${key} is missing`);
  return value;
}

function truth(args: Arguments, key: string): boolean {
  const value = args[key];
  if (value === true || value === 'true') return true;
  if (value === false || value === 'false') return false;
  throw new Error(`${key} must be true or false, not ${JSON.stringify(value)}`);
}

function isStart(args: Arguments): boolean {
  const state = text(args, 'state');
  if (state !== 'start' && state !== 'end') throw new Error(`state must be start or end, not ${state}`);
  return state === 'start';
}

function bootFailure(args: Arguments): BootFailure | undefined {
  const stage = text(args, 'stage');
  if (stage === 'none') return undefined;
  const known = BOOT_FAILURES.find((failure) => failure === stage);
  if (known === undefined) throw new Error(`stage must be one of ${BOOT_FAILURES.join(', ')} or none, not ${stage}`);
  return known;
}
