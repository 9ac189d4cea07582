/** SDMA packets that decide what is executed next, and those about registers, interrupts and time. */
import { address48 } from '../bus/registers.js';
import { compare, type Outcome, type Packet, qword, writeRegister } from './packet.js';
import { FIELD, HEADER, type SdmaContext } from './sdma-context.js';

export function indirect(context: SdmaContext, packet: Packet, header: number): Outcome {
  // A user's buffer stays in its own VMID.
  const vmid = packet.space.vmid === 0 ? HEADER.INDIRECT.get(header, 'VMID') : packet.space.vmid;
  const buffer = {
    space: context.space(vmid),
    address: address48(packet.dword(1) & ~0x1f, packet.dword(2)),
    sizeDwords: FIELD.IB_SIZE.get(packet.dword(3), 'SIZE'),
  };
  return context.queue.call(buffer, packet.lengthDwords) ? 'next' : 'error';
}

export function trap(context: SdmaContext, packet: Packet): Outcome {
  context.trap(packet.space.vmid, FIELD.INT_CONTEXT.get(packet.dword(1), 'CONTEXT'));
  return 'next';
}

export function pollRegisterOrMemory(context: SdmaContext, packet: Packet, header: number): Outcome {
  const [first, second, reference] = [packet.dword(1), packet.dword(2), packet.dword(3)];
  const { HDP_FLUSH, FUNC, MEM_POLL } = HEADER.POLL_REGMEM.unpack(header);
  let value: number;
  if (MEM_POLL === 1) {
    value = packet.space.readU32(address48(first & ~3, second));
  } else {
    // The second address is the request register, written once with the reference.
    if (HDP_FLUSH === 1 && context.queue.progress === 0) {
      writeRegister(context, packet, second >>> 2, reference);
      context.queue.progress = 1;
    }
    value = context.readRegister(first >>> 2);
  }
  const holds = compare(FUNC, (value & packet.dword(4)) >>> 0, reference);
  return holds ? 'next' : 'wait';
}

export function copyRegisterToMemory(context: SdmaContext, packet: Packet): Outcome {
  const value = context.readRegister(packet.dword(1) >>> 2);
  packet.space.writeU32(address48(packet.dword(2) & ~3, packet.dword(3)), value);
  return 'next';
}

/** DEV_SEL is a mask of engines; the others skip the dwords counted. */
export function executeOnSomeEngines(context: SdmaContext, packet: Packet, header: number): Outcome {
  const selected = (HEADER.PRE_EXE.get(header, 'DEV_SEL') >> context.engineIndex) & 1;
  if (selected === 0) context.queue.skip(FIELD.EXEC_COUNT.get(packet.dword(1), 'COUNT'));
  return 'next';
}

export function conditionalExecution(context: SdmaContext, packet: Packet): Outcome {
  const value = packet.space.readU32(address48(packet.dword(1) & ~3, packet.dword(2)));
  const count = FIELD.EXEC_COUNT.get(packet.dword(4), 'COUNT');
  if (value !== packet.dword(3)) context.queue.skip(count);
  return 'next';
}

export function setTimestamp(context: SdmaContext, packet: Packet): Outcome {
  context.setLocalTimestamp(qword(packet, 1));
  return 'next';
}

export function writeTimestamp(context: SdmaContext, packet: Packet, header: number): Outcome {
  const global = HEADER.ANY.get(header, 'SUB_OP') === 2;
  const ticks = global ? context.timestamp() : context.localTimestamp();
  packet.space.writeU64(address48(packet.dword(1) & ~7, packet.dword(2)), ticks);
  return 'next';
}

export function srbmWrite(context: SdmaContext, packet: Packet, header: number): Outcome {
  const dword = FIELD.REGISTER.get(packet.dword(1), 'REG');
  const enables = HEADER.SRBM_WRITE.get(header, 'BYTE_EN');
  let mask = 0;
  for (let byte = 0; byte < 4; byte++) if ((enables >> byte) & 1) mask |= 0xff << (8 * byte);
  const value = mask === -1 ? packet.dword(2) : (packet.dword(2) & mask) | (context.readRegister(dword) & ~mask);
  writeRegister(context, packet, dword, value >>> 0);
  return 'next';
}
