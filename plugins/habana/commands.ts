/**
 * Events and faults on demand, for `ghostbus ctl` and for tests. Each is reported the way the hardware does: the
 * registers that the driver reads hold the cause, then comes the event.
 */
import { type Commands, command } from 'ghostbus';
import { ImageBuilder } from 'ghostbus/kit';
import { z } from 'zod';
import type { Device } from './device.js';
import { BOOT_FAILURES } from './firmware/boot-failure.js';
import { EVENT_DATA_BYTES, eventOf, type FirmwareEvent } from './firmware/event-queue.js';
import { EVENT_TYPES, GAUDI_EVENT } from './firmware/events.js';
import { ADDRESS_END } from './interconnect/address-map.js';

const MAX_U32 = 2 ** 32 - 1;
/**
 * enum hl_eq_fw_alive_severity: critical; and the uptime in seconds that the firmware claims when it reports a death.
 */
const FIRMWARE_DEATH = { uptimeSeconds: 60, processId: 0, threadId: 1, exitCode: 1, critical: 1 } as const;

const wholeNumber = (min: number, max: number, error = `must be a whole number from ${min} to ${max}`) =>
  z.number({ error }).int().min(min).max(max);
const truth = z.boolean({ error: 'must be true or false' });
const startOrEnd = z.enum(['start', 'end'], { error: 'must be start or end' }).describe('whether throttling begins');
const address = wholeNumber(0, ADDRESS_END - 1).describe('device address, at most 50 bits');
const engine = z.string().describe('name as the driver has it, for example DMA0 or NIC0_QM1');

const eventNames = Object.keys(GAUDI_EVENT) as (keyof typeof GAUDI_EVENT)[];
const eventError = `must be 0 to ${EVENT_TYPES - 1} or one of ${eventNames.join(', ')}`;
const eventType = z.union([wholeNumber(0, EVENT_TYPES - 1, eventError), z.enum(eventNames)], { error: eventError });

/** By block: the events of a correctable and of an uncorrectable error. */
const ECC_EVENTS = {
  hbm0: [GAUDI_EVENT.HBM_0_SERR, GAUDI_EVENT.HBM_0_DERR],
  hbm1: [GAUDI_EVENT.HBM_0_SERR + 1, GAUDI_EVENT.HBM_0_DERR + 1],
  hbm2: [GAUDI_EVENT.HBM_0_SERR + 2, GAUDI_EVENT.HBM_0_DERR + 2],
  hbm3: [GAUDI_EVENT.HBM_0_SERR + 3, GAUDI_EVENT.HBM_0_DERR + 3],
  mmu: [GAUDI_EVENT.MMU_SERR, GAUDI_EVENT.MMU_DERR],
} as const;

const eccArguments = z.strictObject({
  block: z.enum(Object.keys(ECC_EVENTS) as (keyof typeof ECC_EVENTS)[]).describe('memory that has the error'),
  correctable: truth.describe('whether the hardware could correct it'),
  address: address.default(0),
  syndrome: wholeNumber(0, MAX_U32).default(0).describe('what the error correction found'),
});

/** struct hl_eq_ecc_data: address, syndrome, memory wrapper, is critical. */
function eccEvent({ block, correctable, address, syndrome }: z.output<typeof eccArguments>): FirmwareEvent {
  const [single, double] = ECC_EVENTS[block];
  const data = new ImageBuilder({ sizeBytes: EVENT_DATA_BYTES });
  data.u64(0, BigInt(address), BigInt(syndrome)).u8(16, 0, correctable ? 0 : 1);
  return { type: correctable ? single : double, data: data.bytes };
}

/** Declares a command that answers with what was asked for. */
function report<Arguments extends z.ZodObject>(
  description: string,
  schema: Arguments,
  run: (device: Device, args: z.output<Arguments>) => void,
) {
  return (name: string) =>
    command({
      description,
      arguments: schema,
      run: (device: Device, args: z.output<Arguments>) => {
        run(device, args);
        return { command: name, ...args };
      },
    });
}

const declarations = {
  event: report(
    'reports any event',
    z.strictObject({
      type: eventType.describe('number or name of enum gaudi_async_event_id'),
      data: z
        .string()
        .regex(new RegExp(`^([0-9a-f]{2}){0,${EVENT_DATA_BYTES}}$`, 'i'), {
          error: `must be at most ${EVENT_DATA_BYTES} bytes in hexadecimal`,
        })
        .optional()
        .describe('what the event carries, in hexadecimal'),
    }),
    (device, { type, data = '' }) => {
      const bytes = new ImageBuilder({ sizeBytes: EVENT_DATA_BYTES }).put(0, Buffer.from(data, 'hex')).bytes;
      device.send({ type: typeof type === 'number' ? type : GAUDI_EVENT[type], data: bytes });
    },
  ),
  ecc: report('reports an ECC error', eccArguments, (device, args) => device.send(eccEvent(args))),
  'page-fault': report('reports an MMU page fault', z.strictObject({ address }), (device, args) =>
    device.pageFault(args.address),
  ),
  'qman-error': report(
    'reports an error of a queue manager',
    z.strictObject({
      engine,
      stream: wholeNumber(0, 4).describe('4 is the lower command processor'),
      cause: wholeNumber(1, 0xffff).describe('bits of GLBL_STS1'),
    }),
    (device, { engine, stream, cause }) => device.qmanError(engine, stream, cause),
  ),
  'tpc-error': report(
    'reports a kernel error of a TPC',
    z.strictObject({
      index: wholeNumber(0, 7).describe('number of the TPC'),
      cause: wholeNumber(1, 0xfffff).describe('bits of TPC_INTR_CAUSE'),
    }),
    (device, { index, cause }) => device.tpcError(index, cause),
  ),
  thermal: report('reports thermal throttling', z.strictObject({ state: startOrEnd }), (device, { state }) =>
    device.send(eventOf(state === 'start' ? GAUDI_EVENT.FIX_THERMAL_ENV_S : GAUDI_EVENT.FIX_THERMAL_ENV_E)),
  ),
  power: report('reports power throttling', z.strictObject({ state: startOrEnd }), (device, { state }) =>
    device.send(eventOf(state === 'start' ? GAUDI_EVENT.FIX_POWER_ENV_S : GAUDI_EVENT.FIX_POWER_ENV_E)),
  ),
  overheat: report(
    'reports a high-temperature interrupt',
    z.strictObject({ cause: wholeNumber(0, 0xff).describe('as the driver prints it') }),
    (device, { cause }) => device.send(eventOf(GAUDI_EVENT.PSOC_GPIO_U16_0, cause)),
  ),
  // struct cpucp_pkt_sync_err
  'out-of-sync': report(
    'reports that the CPU queue is out of sync',
    z.strictObject({
      pi: wholeNumber(0, MAX_U32).describe('producer index'),
      ci: wholeNumber(0, MAX_U32).describe('consumer index'),
    }),
    (device, { pi, ci }) => device.send(eventOf(GAUDI_EVENT.PKT_QUEUE_OUT_SYNC, pi, ci)),
  ),
  'reset-request': report('the firmware asks for a reset of the device', z.strictObject({}), (device) =>
    device.send(eventOf(GAUDI_EVENT.DEV_RESET_REQ)),
  ),
  // struct hl_eq_fw_alive
  watchdog: report('reports that a process of the firmware died', z.strictObject({}), (device) =>
    device.send(eventOf(GAUDI_EVENT.FW_ALIVE_S, ...Object.values(FIRMWARE_DEATH))),
  ),
  heartbeat: report(
    'lets the management processor stop answering, and answer again',
    z.strictObject({ answers: truth.describe('whether it answers from now on') }),
    (device, { answers }) => device.heartbeat(answers),
  ),
  stick: report(
    'an engine stops making progress',
    z.strictObject({ engine, stuck: truth.default(true).describe('false lets it go on') }),
    (device, { engine, stuck }) => device.stick(engine, stuck),
  ),
  'fail-boot': report(
    'the next boots fail, over all resets',
    z.strictObject({
      stage: z.enum([...BOOT_FAILURES, 'none']).describe('where; none: boots succeed again'),
    }),
    (device, { stage }) => device.failBoot(stage === 'none' ? undefined : stage),
  ),
  sensor: report(
    'sets what a sensor measures, over all resets',
    z.strictObject({
      kind: z.string().describe('temperature, voltage, current or power'),
      channel: wholeNumber(0, 127).describe('which sensor of that kind, from 0'),
      value: wholeNumber(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER).describe(
        'millidegrees Celsius, millivolts, milliamperes or microwatts',
      ),
    }),
    (device, { kind, channel, value }) => device.sensor(kind, channel, value),
  ),
};

export const commands: Commands<Device> = Object.fromEntries(
  Object.entries(declarations).map(([name, declare]) => [name, declare(name)]),
);
