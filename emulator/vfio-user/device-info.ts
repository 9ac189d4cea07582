/** Answers to the questions a client asks about a device's shape. Pure: device and request in, reply out. */
import { IRQ, REGION, type RegionInfo, type VfioDevice } from './device.js';
import {
  COMMAND,
  DEVICE_FLAG,
  DEVICE_INFO,
  encodeSparseMmap,
  FLAG,
  IRQ_FLAG,
  IRQ_INFO,
  type Layout,
  MalformedMessage,
  payloadBytes,
  REGION_FLAG,
  REGION_INFO,
  REGION_IO_FDS,
} from './messages.js';

const REPLY = { flags: FLAG.REPLY };
/** libvfio-user bounds what a client may ask to receive at once. */
const MAX_ARGSZ = 1024 * 1024;

/** A whole reply message, its id still 0, and the descriptors that go with it (they stay the device's). */
export interface Reply {
  readonly bytes: Buffer;
  readonly fds?: readonly number[];
}

function requireArgsz(argsz: number, fixed: Layout<string>): void {
  const needed = payloadBytes(fixed);
  if (argsz < needed) throw new MalformedMessage(`argsz ${argsz} has no room for an answer of ${needed} bytes`);
}

export function answerDeviceInfo(message: Buffer): Reply {
  requireArgsz(DEVICE_INFO.decode(message).argsz, DEVICE_INFO);
  const info = {
    argsz: payloadBytes(DEVICE_INFO),
    flags: DEVICE_FLAG.RESET | DEVICE_FLAG.PCI,
    regionCount: REGION.COUNT,
    irqCount: IRQ.COUNT,
  };
  return { bytes: DEVICE_INFO.encode(0, COMMAND.DEVICE_GET_INFO, info, REPLY) };
}

/**
 * When the whole answer does not fit in the client's argsz, it gets the fixed part with the argsz it needs, without
 * capability and descriptor, and asks again (linux/vfio.h VFIO_DEVICE_GET_REGION_INFO).
 */
export function answerRegionInfo(device: VfioDevice, message: Buffer): Reply {
  const { argsz, index } = REGION_INFO.decode(message);
  requireArgsz(argsz, REGION_INFO);
  const region = requireRegion(device, index);
  const mappable = mappablePart(region);
  const areas = mappable?.areas ?? [];
  const whole = areas.length === 1 && areas[0]!.offset === 0 && areas[0]!.sizeBytes === region.sizeBytes;
  const capability = mappable === undefined || whole ? undefined : encodeSparseMmap(areas);
  const needed = payloadBytes(REGION_INFO) + (capability?.length ?? 0);
  const fits = argsz >= needed;
  const values = {
    argsz: needed,
    flags: regionFlags(region) | (capability !== undefined && fits ? REGION_FLAG.CAPS : 0),
    index,
    capabilityOffset: capability !== undefined && fits ? payloadBytes(REGION_INFO) : 0,
    sizeBytes: region.sizeBytes,
    offset: mappable?.fdOffset ?? 0,
  };
  const options = capability !== undefined && fits ? { ...REPLY, data: capability } : REPLY;
  const bytes = REGION_INFO.encode(0, COMMAND.DEVICE_GET_REGION_INFO, values, options);
  return mappable !== undefined && fits ? { bytes, fds: [mappable.fd] } : { bytes };
}

function requireRegion(device: VfioDevice, index: number): RegionInfo {
  const region = index < REGION.COUNT ? device.regions[index] : undefined;
  if (region === undefined) throw new MalformedMessage(`region ${index}; the last one is ${REGION.COUNT - 1}`);
  return region;
}

function mappablePart(region: RegionInfo): RegionInfo['mappable'] {
  return region.sizeBytes > 0 && (region.mappable?.areas.length ?? 0) > 0 ? region.mappable : undefined;
}

function regionFlags(region: RegionInfo): number {
  if (region.sizeBytes === 0) return 0;
  return (
    (region.readable ? REGION_FLAG.READ : 0) |
    (region.writable ? REGION_FLAG.WRITE : 0) |
    (mappablePart(region) !== undefined ? REGION_FLAG.MMAP : 0)
  );
}

export function answerIrqInfo(device: VfioDevice, message: Buffer): Reply {
  const { argsz, index } = IRQ_INFO.decode(message);
  requireArgsz(argsz, IRQ_INFO);
  const irq = index < IRQ.COUNT ? device.irqs[index] : undefined;
  if (irq === undefined) throw new MalformedMessage(`interrupt index ${index}; the last one is ${IRQ.COUNT - 1}`);
  const flags = IRQ_FLAG.EVENTFD | (irq.maskable ? IRQ_FLAG.MASKABLE : 0) | (irq.autoMasked ? IRQ_FLAG.AUTOMASKED : 0);
  const info = { argsz: payloadBytes(IRQ_INFO), flags, index, count: irq.count };
  return { bytes: IRQ_INFO.encode(0, COMMAND.DEVICE_GET_IRQ_INFO, info, REPLY) };
}

/** No region has ioeventfds: QEMU's client never asks for them (vfio-user.md §2.15). */
export function answerRegionIoFds(device: VfioDevice, message: Buffer): Reply {
  const { argsz, flags, index, count } = REGION_IO_FDS.decode(message);
  requireArgsz(argsz, REGION_IO_FDS);
  if (argsz > MAX_ARGSZ) throw new MalformedMessage(`argsz ${argsz} is above ${MAX_ARGSZ}`);
  if (flags !== 0 || count !== 0) throw new MalformedMessage(`flags ${flags} and count ${count} must be 0`);
  if (requireRegion(device, index).sizeBytes === 0) throw new MalformedMessage(`region ${index} does not exist`);
  const info = { argsz: payloadBytes(REGION_IO_FDS), index };
  return { bytes: REGION_IO_FDS.encode(0, COMMAND.DEVICE_GET_REGION_IO_FDS, info, REPLY) };
}
