/** A small driver for specs: fills command slots and rings as mlx5_core and libmlx5 do, on a test bus. */
import assert from 'node:assert/strict';
import type { PcieFunction } from 'ghostbus';
import { TestBus, type TestFunction } from 'ghostbus/testing';
import type { Adapter } from '../adapter.js';
import { type CommandName, opcodes } from '../firmware/opcodes.js';
import plugin from '../index.js';
import { swap32 } from '../layouts/byte-order.js';
import {
  accessRegisterIn,
  createCqIn,
  createEqIn,
  createEqOut,
  createMkeyIn,
  createQpIn,
  rst2initQpIn,
  setRoceAddressIn,
} from '../layouts/commands.js';
import { ads, cqc, eqc, mkc, qpc, roceAddrLayout } from '../layouts/contexts.js';
import { bytesOf, subview } from '../layouts/layout.js';
import type { RdmaModel } from '../model.js';

const SLOT_BYTES = 64;
const MAILBOX_BYTES = 1024;
/** Mailboxes of the one input and the one output that are under way. */
const CHAIN_BLOCKS = 64;
const PAGE_BYTES = 4096;

export interface Answer {
  readonly delivery: number;
  readonly status: number;
  readonly output: DataView;
  readonly number: number;
}

/** One queue of each kind that a test connects. */
export interface TestQueues {
  readonly qpn: number;
  readonly cqn: number;
  readonly cq: number;
  readonly ring: number;
  readonly record: number;
  readonly cqRecord: number;
}

const RQ_STRIDE_BYTES = 64;
const LOG_RQ = 4;
const LOG_SQ = 4;
const LOG_CQ = 6;
/** Where the send ring starts behind the receive ring. */
const SQ_START = RQ_STRIDE_BYTES << LOG_RQ;

export class TestDriver {
  readonly bus: TestBus;
  readonly fn: TestFunction<RdmaModel>;
  readonly #commandQueue: number;
  readonly #inputBoxes: number;
  readonly #outputBoxes: number;
  #token = 0;
  #next: number;

  /** Guest memory from `base` is this driver's own. */
  constructor(bus: TestBus, name: string, instance: number, base: number, options: Record<string, unknown> = {}) {
    this.bus = bus;
    this.#next = base;
    const created = plugin.create(plugin.options.parse(options), bus.context(name, instance));
    const [card] = created as readonly PcieFunction<RdmaModel>[];
    this.fn = bus.add(name, card!, plugin.commands);
    this.#commandQueue = this.allocate(PAGE_BYTES);
    this.#inputBoxes = this.allocate(CHAIN_BLOCKS * MAILBOX_BYTES);
    this.#outputBoxes = this.allocate(CHAIN_BLOCKS * MAILBOX_BYTES);
    this.placeCommandQueue();
  }

  /** Tells the adapter where commands are, as at start and after every reset. */
  placeCommandQueue(): void {
    this.fn.write(0, 0x10, swap32(Math.floor(this.#commandQueue / 2 ** 32)));
    this.fn.write(0, 0x14, swap32(this.#commandQueue % 2 ** 32));
  }

  get model(): RdmaModel {
    return this.fn.model;
  }

  get adapter(): Adapter {
    return this.model.adapter;
  }

  /** Runs a command of `ghostbus ctl`. */
  control(name: string, args: Readonly<Record<string, unknown>> = {}): unknown {
    return this.fn.control(name, args);
  }

  get memory(): DataView {
    const { buffer, byteOffset, byteLength } = this.bus.guestBytes;
    return new DataView(buffer, byteOffset, byteLength);
  }

  /** Zeroed, page-aligned guest memory. */
  allocate(sizeBytes: number): number {
    const address = this.#next;
    this.#next += Math.ceil(sizeBytes / PAGE_BYTES) * PAGE_BYTES;
    this.bus.guestMemory.fill(address, 0, sizeBytes);
    return address;
  }

  /** Runs one command through the queue and its mailboxes. */
  command(name: CommandName | number, input: DataView, opMod = 0, outputBytes = 0x1010): Answer {
    const opcode = typeof name === 'number' ? name : opcodes[name];
    input.setUint16(0, opcode);
    input.setUint16(6, opMod);
    return this.raw(bytesOf(input), outputBytes);
  }

  /**
   * Fills slot 0 as `mlx5_cmd_exec` would and waits for the ownership bit; `spoil` may damage it before the doorbell.
   */
  raw(input: Uint8Array, outputBytes: number, spoil: (slot: DataView, mailbox: DataView) => void = () => {}): Answer {
    this.#token = (this.#token % 255) + 1;
    const token = this.#token;
    const slot = subview(this.memory, this.#commandQueue, SLOT_BYTES);
    bytesOf(slot).fill(0);
    slot.setUint8(0, 7);
    slot.setUint32(4, input.length);
    bytesOf(slot).set(input.subarray(0, 16), 16);
    const inputBox = this.#chain(this.#inputBoxes, input.length, token);
    this.#fillChain(inputBox, input);
    const outputBox = this.#chain(this.#outputBoxes, outputBytes, token);
    slot.setBigUint64(8, BigInt(inputBox));
    slot.setBigUint64(48, BigInt(outputBox));
    slot.setUint32(56, outputBytes);
    slot.setUint8(60, token);
    slot.setUint8(63, 1);
    slot.setUint8(61, ~bytesOf(slot).reduce((sum, byte) => sum ^ byte, 0) & 0xff);
    spoil(slot, subview(this.memory, inputBox, MAILBOX_BYTES));
    this.fn.write(0, 0x18, swap32(1));
    this.bus.run();
    assert.equal(slot.getUint8(63) & 1, 0, 'the adapter still owns the slot');
    assert.equal(
      bytesOf(slot).reduce((sum, byte) => sum ^ byte, 0),
      0xff,
      'signature of the answer',
    );
    const output = new DataView(new ArrayBuffer(Math.max(outputBytes, 16)));
    bytesOf(output).set(bytesOf(subview(slot, 32, 16)));
    this.#readChain(outputBox, bytesOf(output));
    return {
      delivery: slot.getUint8(63) >>> 1,
      status: output.getUint8(0),
      output,
      number: output.getUint32(8) & 0xffffff,
    };
  }

  /** Like {@link command}, and it must succeed. */
  run(name: CommandName, input = new DataView(new ArrayBuffer(16)), opMod = 0): Answer {
    const answer = this.command(name, input, opMod);
    assert.equal(answer.status, 0, `${name}: ${JSON.stringify(this.fn.log.records.at(-1))}`);
    return answer;
  }

  /** A command whose input is only an object number. */
  runNumber(name: CommandName, number: number): Answer {
    const input = new DataView(new ArrayBuffer(16));
    input.setUint32(8, number);
    return this.run(name, input);
  }

  createEq(vector: number, mask: bigint): { eqn: number; ring: number } {
    const ring = this.allocate(PAGE_BYTES);
    const input = new DataView(new ArrayBuffer(0x118));
    const context = createEqIn.part(input, 'eq_context_entry');
    eqc.fill(context, { log_eq_size: 6, intr: vector });
    input.setBigUint64(createEqIn.byteOf('event_bitmask'), mask);
    input.setBigUint64(createEqIn.byteOf('pas'), BigInt(ring));
    for (let entry = 0; entry < 64; entry++) this.memory.setUint8(ring + entry * 64 + 63, 1);
    const answer = this.run('CREATE_EQ', input);
    return { eqn: createEqOut.get(answer.output, 'eq_number'), ring };
  }

  createCq(eqn: number, logSize = LOG_CQ): { cqn: number; cq: number; cqRecord: number } {
    const cq = this.allocate(64 << logSize);
    const cqRecord = this.allocate(64);
    for (let entry = 0; entry < 1 << logSize; entry++) this.memory.setUint8(cq + entry * 64 + 63, 0xf0);
    const pages = Math.ceil((64 << logSize) / PAGE_BYTES);
    const input = new DataView(new ArrayBuffer(0x110 + 8 * pages));
    const context = createCqIn.part(input, 'cq_context');
    cqc.fill(context, { log_cq_size: logSize, c_eqn_or_apu_element: eqn });
    cqc.set64(context, 'dbr_addr', BigInt(cqRecord));
    for (let page = 0; page < pages; page++) input.setBigUint64(0x110 + 8 * page, BigInt(cq + page * PAGE_BYTES));
    return { cqn: this.run('CREATE_CQ', input).number, cq, cqRecord };
  }

  /** A key for physical addresses, with every right. */
  createPhysicalKey(pd: number): number {
    const input = new DataView(new ArrayBuffer(0x110));
    const context = createMkeyIn.part(input, 'memory_key_mkey_entry');
    mkc.fill(context, { lr: 1, lw: 1, rr: 1, rw: 1, a: 1, length64: 1, pd, qpn: 0xffffff, mkey_7_0: 0x55 });
    return (this.run('CREATE_MKEY', input).number << 8) | 0x55;
  }

  /** A queue pair with small rings; everything completes in one completion queue. */
  createQp(
    service: number,
    pd: number,
    eqn: number,
    extra: Partial<Record<keyof typeof qpc.fields, number>> = {},
  ): TestQueues {
    const { cqn, cq, cqRecord } = this.createCq(eqn);
    const ring = this.allocate(SQ_START + (64 << LOG_SQ));
    const record = this.allocate(64);
    const input = new DataView(new ArrayBuffer(0x110 + 8));
    const context = createQpIn.part(input, 'qpc');
    qpc.fill(context, {
      st: service,
      pd,
      cqn_snd: cqn,
      cqn_rcv: cqn,
      log_rq_size: LOG_RQ,
      log_rq_stride: 2,
      log_sq_size: LOG_SQ,
      user_index: 0xabc,
      ...extra,
    });
    qpc.set64(context, 'dbr_addr', BigInt(record));
    input.setBigUint64(createQpIn.byteOf('pas'), BigInt(ring));
    return { qpn: this.run('CREATE_QP', input).number, cqn, cq, cqRecord, ring, record };
  }

  /** A state change with these fields of qpc and of its path. */
  modifyQp(
    name: CommandName,
    qpn: number,
    fields: Partial<Record<keyof typeof qpc.fields, number>>,
    path: Partial<Record<keyof typeof ads.fields, number>> = {},
    gid?: Uint8Array,
    optional = 0,
  ): Answer {
    const input = new DataView(new ArrayBuffer(0x110));
    input.setUint32(8, qpn);
    rst2initQpIn.set(input, 'opt_param_mask', optional);
    const context = subview(input, rst2initQpIn.byteOf('qpc'), qpc.sizeBytes);
    qpc.fill(context, fields);
    const address = subview(context, qpc.byteOf('primary_address_path'), ads.sizeBytes);
    ads.fill(address, path);
    if (gid !== undefined) bytesOf(ads.part(address, 'rgid_rip')).set(gid);
    return this.command(name, input);
  }

  /** INIT, RTR and RTS towards a queue pair at an adapter with that GID. */
  connect(queues: TestQueues, pd: number, remoteQpn: number, gid: Uint8Array): void {
    const { qpn, cqn } = queues;
    const rights = { pd, cqn_snd: cqn, cqn_rcv: cqn, rre: 1, rwe: 1, rae: 1, min_rnr_nak: 12, q_key: 0x11111111 };
    assert.equal(this.modifyQp('RST2INIT_QP', qpn, rights).status, 0);
    const receive = { mtu: 3, remote_qpn: remoteQpn, min_rnr_nak: 12 };
    assert.equal(this.modifyQp('INIT2RTR_QP', qpn, receive, { grh: 1 }, gid).status, 0);
    const send = { retry_count: 7, rnr_retry: 7 };
    assert.equal(this.modifyQp('RTR2RTS_QP', qpn, send, { ack_timeout: 10 }).status, 0);
  }

  setGid(index: number, gid: Uint8Array): void {
    const input = new DataView(new ArrayBuffer(0x30));
    setRoceAddressIn.set(input, 'roce_address_index', index);
    const entry = setRoceAddressIn.part(input, 'roce_address');
    bytesOf(roceAddrLayout.part(entry, 'source_l3_address')).set(gid);
    roceAddrLayout.fill(entry, { roce_version: 2, roce_l3_type: 1 });
    this.run('SET_ROCE_ADDRESS', input);
  }

  /** Puts one entry of whole blocks at `block` of the send ring and rings; returns the block behind it. */
  post(queues: TestQueues, block: number, entry: Uint8Array): number {
    const next = this.place(queues, block, entry);
    this.ring(queues);
    return next;
  }

  ring(queues: TestQueues): void {
    this.fn.write(0, 0x10800, swap32(0));
    this.fn.write(0, 0x10804, swap32(queues.qpn << 8));
  }

  /** {@link post} without the doorbell. */
  place(queues: TestQueues, block: number, entry: Uint8Array): number {
    const blocks = Math.ceil(entry.length / 64);
    for (let index = 0; index < blocks; index++) {
      const slot = (block + index) % (1 << LOG_SQ);
      this.bus.guestMemory.write(queues.ring + SQ_START + slot * 64, entry.slice(index * 64, (index + 1) * 64));
    }
    this.memory.setUint32(queues.record + 4, block + blocks);
    return block + blocks;
  }

  /** Posts receives, one data segment each. */
  postReceive(queues: TestQueues, index: number, key: number, address: number, lengthBytes: number): void {
    const at = queues.ring + (index % (1 << LOG_RQ)) * RQ_STRIDE_BYTES;
    this.bus.guestMemory.write(at, dataSegment(key, address, lengthBytes));
    this.bus.guestMemory.write(at + 16, dataSegment(0x100, 0, 0));
    this.memory.setUint32(queues.record, index + 1);
  }

  /** Entry `index` of a completion queue. */
  completion(queues: { cq: number }, index: number): DataView {
    return subview(this.memory, queues.cq + index * 64, 64);
  }

  readRegister(register: number): DataView {
    const input = new DataView(new ArrayBuffer(0x50));
    accessRegisterIn.set(input, 'register_id', register);
    return subview(this.run('ACCESS_REG', input, 1).output, 0x10);
  }

  #chain(first: number, lengthBytes: number, token: number): number {
    const blocks = Math.max(0, Math.min(CHAIN_BLOCKS, Math.ceil((lengthBytes - 16) / 512)));
    this.bus.guestMemory.fill(first, 0, Math.max(1, blocks) * MAILBOX_BYTES);
    for (let block = 0; block < blocks; block++) {
      const at = first + block * MAILBOX_BYTES;
      this.memory.setBigUint64(at + 560, block + 1 < blocks ? BigInt(at + MAILBOX_BYTES) : 0n);
      this.memory.setUint32(at + 568, block);
      this.memory.setUint8(at + 573, token);
    }
    return first;
  }

  #fillChain(first: number, input: Uint8Array): void {
    for (let done = 16, block = 0; done < input.length; done += 512, block++) {
      this.bus.guestMemory.write(first + block * MAILBOX_BYTES, input.slice(done, done + 512));
    }
  }

  #readChain(first: number, output: Uint8Array): void {
    for (let done = 16, block = 0; done < output.length; done += 512, block++) {
      this.bus.guestMemory.read(first + block * MAILBOX_BYTES, output.subarray(done, done + 512));
    }
  }
}

export function dataSegment(key: number, address: number, lengthBytes: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setUint32(0, lengthBytes);
  view.setUint32(4, key);
  view.setBigUint64(8, BigInt(address));
  return bytesOf(view);
}

export function remoteSegment(key: number, address: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setBigUint64(0, BigInt(address));
  view.setUint32(8, key);
  return bytesOf(view);
}

/** A control segment and what follows it. */
export function workRequest(
  opcode: number,
  segments: readonly Uint8Array[],
  options: { immediate?: number; solicited?: boolean; silent?: boolean } = {},
): Uint8Array {
  const length = 16 + segments.reduce((sum, segment) => sum + segment.length, 0);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, opcode);
  view.setUint32(4, length / 16);
  view.setUint8(11, (options.silent === true ? 0 : 8) | (options.solicited === true ? 2 : 0));
  view.setUint32(12, options.immediate ?? 0);
  let at = 16;
  for (const segment of segments) {
    bytes.set(segment, at);
    at += segment.length;
  }
  return bytes;
}

/** Two adapters on one bus, with a GID each. */
export function twoDrivers(options: Record<string, unknown> = {}): {
  bus: TestBus;
  a: TestDriver;
  b: TestDriver;
  gids: [Uint8Array, Uint8Array];
} {
  const bus = new TestBus(128 * 1024 * 1024);
  const a = new TestDriver(bus, 'rdma0', 0, 0x100000, options);
  const b = new TestDriver(bus, 'rdma1', 1, 0x4000000, options);
  const gids: [Uint8Array, Uint8Array] = [gidOf(1), gidOf(2)];
  a.setGid(0, gids[0]);
  b.setGid(0, gids[1]);
  return { bus, a, b, gids };
}

export function gidOf(last: number): Uint8Array {
  const gid = new Uint8Array(16);
  gid[0] = 0xfe;
  gid[1] = 0x80;
  gid[15] = last;
  return gid;
}
