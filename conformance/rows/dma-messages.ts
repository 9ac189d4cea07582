import assert from 'node:assert/strict';
import { ERRNO } from '../../emulator/host/index.js';
import { COMMAND, DMA_ACCESS, encodeError, FLAG, writeHeader } from '../../emulator/vfio-user/messages.js';
import type { Bench } from '../bench.js';
import type { ReceivedMessage } from '../client.js';
import { assertInSync, dmaMap, type Row, raw, readRegion, resetDevice } from '../row.js';

/** How a client answers DMA messages; see dma-channel.ts. */
export interface Dialect {
  readonly dataOffset: 28 | 32;
  readonly writeReplyBytes: 16 | 32;
}
const SPECIFIED: Dialect = { dataOffset: 32, writeReplyBytes: 32 };
const QEMU_10_2: Dialect = { dataOffset: 28, writeReplyBytes: 16 };

const BASE = 0x10_0000;

/** Plays QEMU: guest memory from BASE on, served from the same bus that the server waits on. */
class GuestMemory {
  readonly bytes = Buffer.alloc(0x40000);
  readonly requests: string[] = [];
  /** Called first; true: the message has been dealt with. */
  intercept: (message: ReceivedMessage) => boolean = () => false;
  readonly #bench: Bench;
  readonly #dialect: Dialect;

  constructor(bench: Bench, dialect: Dialect) {
    this.#bench = bench;
    this.#dialect = dialect;
    for (let i = 0; i < this.bytes.length; i++) this.bytes[i] = (i * 7 + (i >> 8)) & 0xff;
    bench.bus.watch(bench.client.fd, () => this.#serve());
  }

  #serve(): void {
    for (let message = this.#bench.client.poll(); message !== undefined; message = this.#bench.client.poll()) {
      if (!this.intercept(message)) this.answer(message);
    }
  }

  answer(message: ReceivedMessage): void {
    const { address } = DMA_ACCESS.decode(message.bytes);
    const count = message.bytes.readUInt32LE(24);
    const at = address! - BASE;
    const write = message.command === COMMAND.DMA_WRITE;
    this.requests.push(`${write ? 'write' : 'read'} ${at.toString(16)}+${count}`);
    const { dataOffset, writeReplyBytes } = this.#dialect;
    if (write) this.bytes.set(message.bytes.subarray(dataOffset, dataOffset + count), at);
    const reply = Buffer.alloc(write ? writeReplyBytes : 32 + count);
    writeHeader(reply, 0, message.id, message.command, reply.length, FLAG.REPLY, 0);
    if (reply.length >= 32) message.bytes.copy(reply, 16, 16, 28);
    if (!write) this.bytes.copy(reply, dataOffset, at, at + count);
    this.#bench.client.send(reply);
  }

  end(): void {
    this.#bench.bus.unwatch(this.#bench.client.fd);
  }
}

function withGuest(dialect: Dialect, run: (bench: Bench, guest: GuestMemory) => void) {
  return (bench: Bench) => {
    const guest = new GuestMemory(bench, dialect);
    try {
      run(bench, guest);
    } finally {
      guest.end();
    }
  };
}

function read(bench: Bench, at: number, count: number): Buffer {
  const target = Buffer.alloc(count);
  bench.device.channel!.dmaRead(BASE + at, target);
  return target;
}

function write(bench: Bench, at: number, data: Uint8Array): void {
  bench.device.channel!.dmaWrite(BASE + at, data);
}

/** Reads and writes what real memory looks like: full, empty, and zeros at either end. */
function movesEveryByte(bench: Bench, guest: GuestMemory): void {
  guest.bytes.fill(0, 0x1000, 0x2000);
  guest.bytes.set([1, 2, 3], 0x1800);
  for (const [at, count] of [
    [0x1000, 64],
    [0x17c0, 0x80],
    [0, 1],
    [3, 5],
    [0x2000, 4096],
  ] as const) {
    assert.deepEqual(read(bench, at, count), guest.bytes.subarray(at, at + count));
  }
  const data = Buffer.from([0, 0, 0, 0, 0, 9, 8, 7, 0, 0, 0, 0]);
  for (const at of [0x1100, 0x3001]) {
    write(bench, at, data);
    assert.deepEqual(guest.bytes.subarray(at, at + data.length), data);
  }
}

/** Writes first, into zeros and elsewhere: the layout must be found out without doing harm beside the range. */
function writesFirst(bench: Bench, guest: GuestMemory, at: number): void {
  const before = Buffer.from(guest.bytes);
  const data = Buffer.from([0, 0, 0, 0, 5, 6, 7, 0, 0, 0, 0, 0]);
  write(bench, at, data);
  before.set(data, at);
  assert.deepEqual(guest.bytes, before);
}

function failsWith(bench: Bench, errno: number, attempt: () => void): void {
  assert.throws(attempt, { name: 'SystemError', errno });
  bench.turn();
}

export const DMA_MESSAGE_ROWS: readonly Row[] = [
  { id: 'P-01', what: 'a client as specified: every byte right', inside: withGuest(SPECIFIED, movesEveryByte) },
  {
    id: 'P-02',
    what: "QEMU 10.2's layout: found out, every byte right, also when a write comes first",
    inside: (bench) => {
      withGuest(QEMU_10_2, movesEveryByte)(bench);
      for (const dialect of [SPECIFIED, QEMU_10_2]) {
        for (const at of [0x1000, 0x5000]) {
          bench.reconnect();
          withGuest(dialect, (_, guest) => {
            guest.bytes.fill(0, 0x1000, 0x2000);
            writesFirst(bench, guest, at);
          })(bench);
        }
      }
    },
  },
  {
    id: 'P-03',
    what: 'DMA_WRITE replies of 32 and of 16 bytes: both accepted',
    inside: (bench) => {
      for (const writeReplyBytes of [16, 32] as const) {
        bench.reconnect();
        withGuest({ dataOffset: 32, writeReplyBytes }, (_, guest) => {
          write(bench, 0, Buffer.from('abcd'));
          assert.equal(guest.bytes.toString('latin1', 0, 4), 'abcd');
        })(bench);
      }
    },
  },
  {
    id: 'P-04',
    what: 'error replies: the model gets the errno',
    inside: withGuest(SPECIFIED, (bench, guest) => {
      for (const errno of [ERRNO.EFAULT, ERRNO.ENODEV, ERRNO.EPERM, ERRNO.E2BIG, ERRNO.EIO]) {
        guest.intercept = ({ id, command }) => {
          bench.client.send(encodeError(id, command, errno));
          return true;
        };
        failsWith(bench, errno, () => read(bench, 0, 16));
        failsWith(bench, errno, () => write(bench, 0, Buffer.alloc(16, 1)));
      }
      guest.intercept = () => false;
      assert.deepEqual(read(bench, 0, 16), guest.bytes.subarray(0, 16));
    }),
  },
  {
    id: 'P-05',
    what: 'more than 64 KiB: split',
    inside: withGuest(SPECIFIED, (bench, guest) => {
      assert.deepEqual(read(bench, 0x10, 0x20001), guest.bytes.subarray(0x10, 0x20011));
      assert.deepEqual(guest.requests, ['read 10+65536', 'read 10010+65536', 'read 20010+1']);
      write(bench, 0x10, Buffer.alloc(0x18000, 0x77));
      assert.deepEqual(guest.requests.slice(3), ['write 10+65536', 'write 10010+32768']);
      assert.ok(guest.bytes.subarray(0x10, 0x18010).every((byte) => byte === 0x77));
    }),
  },
  {
    id: 'P-06',
    what: 'a reply with an unknown id: logged, counted, not answered, body drained',
    inside: (bench) => {
      bench.client.send(raw(COMMAND.DMA_READ, 48, FLAG.REPLY, 0x4321));
      assertInSync(bench);
      assert.equal(bench.server.statistics().unexpectedReplies, 1);
      assert.ok(bench.logged.some(({ message }) => message.includes(`${0x4321}`)));
    },
  },
  {
    id: 'P-07',
    what: 'no reply: ETIMEDOUT, a late one is harmless, requests are served',
    dmaTimeoutMs: 30,
    inside: withGuest(SPECIFIED, (bench, guest) => {
      const unanswered: ReceivedMessage[] = [];
      guest.intercept = (message) => unanswered.push(message) > 0;
      failsWith(bench, ERRNO.ETIMEDOUT, () => read(bench, 0, 16));
      guest.answer(unanswered[0]!);
      bench.turn();
      assert.equal(bench.server.statistics().unexpectedReplies, 1);
      guest.intercept = () => false;
      assert.deepEqual(read(bench, 0x20, 16), guest.bytes.subarray(0x20, 0x30));
      guest.end();
      assertInSync(bench);
      bench.bus.watch(bench.client.fd, () => {});
    }),
  },
  {
    id: 'P-08',
    what: 'requests between DMA_READ and its reply: served at once',
    inside: withGuest(SPECIFIED, (bench, guest) => {
      const served: number[] = [];
      let held: ReceivedMessage | undefined;
      guest.intercept = (message) => {
        if (message.command === COMMAND.DMA_READ) {
          held = message;
          bench.client.send(Buffer.concat([dmaMap({ address: 0x1000 }), resetDevice()]));
          return true;
        }
        served.push(message.command);
        if (served.length === 2) guest.answer(held!);
        return true;
      };
      assert.deepEqual(read(bench, 0, 8), guest.bytes.subarray(0, 8));
      assert.deepEqual(served, [COMMAND.DMA_MAP, COMMAND.DEVICE_RESET]);
      assert.equal(bench.device.resets, 1);
    }),
  },
  {
    id: 'P-09',
    what: 'a region read while DMA is outstanding: answered; its handler cannot start DMA of its own (EDEADLK)',
    inside: withGuest(SPECIFIED, (bench, guest) => {
      let held: ReceivedMessage | undefined;
      let refusal: unknown;
      bench.device.onRead = () => {
        try {
          read(bench, 0, 4);
        } catch (error) {
          refusal = error;
        }
      };
      guest.intercept = (message) => {
        if (message.command === COMMAND.DMA_READ) {
          held = message;
          bench.client.send(readRegion(1, 0, 4));
        } else {
          guest.answer(held!);
        }
        return true;
      };
      assert.deepEqual(read(bench, 0, 8), guest.bytes.subarray(0, 8));
      assert.equal((refusal as { code?: string }).code, 'EDEADLK');
    }),
  },
  {
    id: 'P-10',
    what: 'an error reply to a posted DMA_WRITE: tolerated',
    inside: (bench) => {
      bench.client.send(encodeError(3, COMMAND.DMA_WRITE, ERRNO.EFAULT));
      assertInSync(bench);
    },
  },
  {
    id: 'P-11',
    what: 'max_data_xfer_size 1024: pieces of 1024',
    negotiated: false,
    inside: (bench) => {
      bench.client.negotiate('{"capabilities":{"max_data_xfer_size":1024}}');
      withGuest(SPECIFIED, (_, guest) => {
        assert.deepEqual(read(bench, 0, 2500), guest.bytes.subarray(0, 2500));
        assert.deepEqual(guest.requests, ['read 0+1024', 'read 400+1024', 'read 800+452']);
      })(bench);
    },
  },
  {
    id: 'P-12',
    what: 'disconnect while DMA is outstanding: the model gets an error; afterwards too',
    inside: (bench) => {
      const { channel } = bench.device;
      const guest = new GuestMemory(bench, SPECIFIED);
      guest.intercept = () => {
        guest.end();
        bench.disconnect();
        return true;
      };
      failsWith(bench, ERRNO.ECONNRESET, () => read(bench, 0, 8));
      failsWith(bench, ERRNO.ENOTCONN, () => channel!.dmaRead(BASE, Buffer.alloc(4)));
      bench.client = bench.connect();
      bench.client.negotiate();
      assertInSync(bench);
    },
  },
];
