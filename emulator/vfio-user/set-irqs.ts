/** DEVICE_SET_IRQS: every rule of linux/vfio.h VFIO_DEVICE_SET_IRQS, then one call of the device. */
import { IRQ, type VfioDevice } from './device.js';
import type { Reply } from './device-info.js';
import { COMMAND, EMPTY, FLAG, IRQ_SET, MalformedMessage, payloadBytes, SET_IRQS } from './messages.js';

const DATA_MASK = IRQ_SET.NONE | IRQ_SET.BOOL | IRQ_SET.EVENTFD;
const ACTION_MASK = IRQ_SET.MASK | IRQ_SET.UNMASK | IRQ_SET.TRIGGER;

interface IrqRequest {
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** One of IRQ_SET.NONE, BOOL, EVENTFD. */
  readonly data: number;
  /** One of IRQ_SET.MASK, UNMASK, TRIGGER. */
  readonly action: number;
  /** With BOOL: one byte per vector. */
  readonly booleans: Buffer;
}

function decode(message: Buffer): IrqRequest {
  const { argsz, flags, index, start, count } = SET_IRQS.decode(message);
  if (argsz < payloadBytes(SET_IRQS)) throw new MalformedMessage(`argsz ${argsz}`);
  if ((flags & ~(DATA_MASK | ACTION_MASK)) !== 0) throw new MalformedMessage(`flags 0x${flags.toString(16)}`);
  const data = flags & DATA_MASK;
  const action = flags & ACTION_MASK;
  if (!isOneBit(data) || !isOneBit(action)) {
    throw new MalformedMessage(`flags 0x${flags.toString(16)} must name one kind of data and one action`);
  }
  return { index, start, count, data, action, booleans: message.subarray(SET_IRQS.sizeBytes) };
}

function isOneBit(value: number): boolean {
  return value !== 0 && (value & (value - 1)) === 0;
}

function disablesIndex({ data, action, start, count }: IrqRequest): boolean {
  return data === IRQ_SET.NONE && action === IRQ_SET.TRIGGER && start === 0 && count === 0;
}

function checkRange(request: IrqRequest, vectors: number): void {
  const { index, start, count } = request;
  // Switching an index off is allowed even when it has no vectors: QEMU does it on every reset.
  if (disablesIndex(request)) return;
  if (count === 0) throw new MalformedMessage('count 0 is only for switching an index off');
  if (start + count > vectors) {
    throw new MalformedMessage(
      `vectors ${start} to ${start + count - 1} of interrupt index ${index}, which has ${vectors}`,
    );
  }
}

function checkData({ data, count, booleans }: IrqRequest, fdCount: number): void {
  if (data === IRQ_SET.EVENTFD ? fdCount !== 0 && fdCount !== count : fdCount !== 0) {
    throw new MalformedMessage(`${fdCount} descriptors for ${count} vectors`);
  }
  if (data === IRQ_SET.BOOL && booleans.length !== count) {
    throw new MalformedMessage(`${booleans.length} data bytes for ${count} vectors`);
  }
}

function checkMasking({ index, action, data }: IrqRequest): void {
  if (action === IRQ_SET.TRIGGER) return;
  if (index === IRQ.ERR || index === IRQ.REQ) throw new MalformedMessage(`interrupt index ${index} cannot be masked`);
  if (data === IRQ_SET.EVENTFD && (action !== IRQ_SET.UNMASK || index !== IRQ.INTX)) {
    throw new MalformedMessage('only the unmasking of INTx can be asked for by an eventfd');
  }
}

/** `fds`: the message's; those that are used are taken out. */
export function answerSetIrqs(device: VfioDevice, message: Buffer, fds: number[]): Reply {
  const request = decode(message);
  const irq = request.index < IRQ.COUNT ? device.irqs[request.index] : undefined;
  if (irq === undefined) throw new MalformedMessage(`interrupt index ${request.index}; the last is ${IRQ.COUNT - 1}`);
  checkRange(request, irq.count);
  checkData(request, fds.length);
  checkMasking(request);
  if (request.action === IRQ_SET.TRIGGER) applyTrigger(device, request, fds);
  else applyMask(device, request, fds);
  return { bytes: EMPTY.encode(0, COMMAND.DEVICE_SET_IRQS, {}, { flags: FLAG.REPLY }) };
}

function applyTrigger(device: VfioDevice, request: IrqRequest, fds: number[]): void {
  const { index, start, count, data } = request;
  if (data === IRQ_SET.EVENTFD) {
    const assigned = fds.splice(0);
    device.setEventfds(index, start, assigned.length > 0 ? assigned : new Array<undefined>(count).fill(undefined));
  } else if (count === 0) {
    device.disableIrqs(index);
  } else {
    device.triggerVectors(index, start, chosenVectors(request));
  }
}

function applyMask(device: VfioDevice, request: IrqRequest, fds: number[]): void {
  const { index, start, data, action } = request;
  if (data === IRQ_SET.EVENTFD) {
    device.setUnmaskEventfd(index, fds.pop());
    return;
  }
  const masked = action === IRQ_SET.MASK;
  device.maskVectors(
    index,
    start,
    chosenVectors(request).map((chosen) => (chosen ? masked : undefined)),
  );
}

function chosenVectors({ data, count, booleans }: IrqRequest): boolean[] {
  return data === IRQ_SET.BOOL ? Array.from(booleans, (byte) => byte !== 0) : new Array<boolean>(count).fill(true);
}
