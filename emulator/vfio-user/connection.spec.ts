import assert from 'node:assert/strict';
import {
  closeFd,
  createEventfd,
  drainEventfd,
  ERRNO,
  openFdCount,
  recvWithFds,
  sendWithFds,
  signalEventfd,
  socketPair,
} from '../host/index.js';
import { Connection } from './connection.js';
import { FLAG, HEADER_BYTES, writeHeader } from './messages.js';

const LIMIT = 1024 * 1024 + 32;

function message(id: number, sizeBytes = HEADER_BYTES): Buffer {
  const bytes = Buffer.alloc(sizeBytes, id);
  writeHeader(bytes, 0, id, 1, sizeBytes, FLAG.COMMAND, 0);
  return bytes;
}

describe('vfio-user connection', () => {
  let connection: Connection;
  let peer: number;
  let fdsBefore: number;
  let eventfds: number[];

  beforeEach(() => {
    fdsBefore = openFdCount();
    const [own, other] = socketPair();
    connection = new Connection(own, LIMIT);
    peer = other;
    eventfds = [createEventfd(), createEventfd(), createEventfd()];
  });

  afterEach(() => {
    connection.close();
    closeFd(peer);
    for (const fd of eventfds) closeFd(fd);
    assert.equal(openFdCount(), fdsBefore, 'descriptors left open');
  });

  const send = (bytes: Buffer, fds: readonly number[] = []) =>
    assert.equal(sendWithFds(peer, bytes, 0, bytes.length, fds), bytes.length);

  /** Ids and the eventfds that came with each message, by index; closes the copies. */
  function take(): [number, number[]][] {
    const taken: [number, number[]][] = [];
    while (connection.receive() === 'received') {
      for (let next = connection.next(); next !== undefined; next = connection.next()) {
        taken.push([next.id, next.fds.map(indexOfEventfd)]);
        for (const fd of next.fds) closeFd(fd);
      }
    }
    return taken;
  }

  function indexOfEventfd(fd: number): number {
    signalEventfd(fd);
    return eventfds.findIndex((own) => drainEventfd(own) === 1n);
  }

  it('splits one read into its messages', () => {
    send(Buffer.concat([message(1), message(2, 100), message(3)]));
    assert.deepEqual(take(), [
      [1, []],
      [2, []],
      [3, []],
    ]);
  });

  it('gives descriptors to the message that owns the last byte of a read', () => {
    send(message(1));
    send(message(2));
    send(message(3, 24), [eventfds[0]!]);
    send(message(4));
    send(message(5), [eventfds[1]!, eventfds[2]!]);
    assert.deepEqual(take(), [
      [1, []],
      [2, []],
      [3, [0]],
      [4, []],
      [5, [1, 2]],
    ]);
  });

  it('keeps the descriptors of a message that comes byte by byte', () => {
    const bytes = message(9, 20);
    send(bytes.subarray(0, 1), [eventfds[1]!]);
    for (let i = 1; i < bytes.length; i++) {
      assert.deepEqual(take(), []);
      send(bytes.subarray(i, i + 1));
    }
    assert.deepEqual(take(), [[9, [1]]]);
  });

  it('puts a message together that is larger than its buffer and starts at its end', () => {
    const [first, large] = [message(1, 64 * 1024 - 20), message(2, 200_000)];
    const bytes = Buffer.concat([first, large, message(3)]);
    const ids: number[] = [];
    for (let sent = 0, idle = false; !idle; ) {
      const left = bytes.length - sent;
      const count = left === 0 ? 0 : sendWithFds(peer, bytes, sent, Math.min(30_000, left), []);
      assert.ok(typeof count === 'number');
      sent += count;
      idle = connection.receive() !== 'received';
      for (let next = connection.next(); next !== undefined; next = connection.next()) {
        ids.push(next.id);
        const body = next.bytes.subarray(next.start + HEADER_BYTES, next.start + next.sizeBytes);
        assert.ok(
          body.every((byte) => byte === next.id),
          `body of message ${next.id}`,
        );
      }
    }
    assert.deepEqual(ids, [1, 2, 3]);
  });

  it('calls a message broken whose size cannot be, and consumes what came with it', () => {
    for (const sizeBytes of [0, 15, LIMIT + 1, 0xffffffff]) {
      const bytes = message(7);
      bytes.writeUInt32LE(sizeBytes, 4);
      send(Buffer.concat([bytes, message(8)]));
      connection.receive();
      const broken = connection.next();
      assert.deepEqual([broken?.id, broken?.broken, connection.hasMessage], [7, true, false]);
    }
  });

  it('does not collect descriptors without bound for a message that never ends', () => {
    const bytes = message(1, 4096);
    for (let i = 0; i < 200; i++) {
      send(bytes.subarray(i, i + 1), eventfds);
      connection.receive();
    }
    assert.ok(openFdCount() - fdsBefore < 80, `${openFdCount() - fdsBefore} descriptors`);
    send(bytes.subarray(200));
    connection.receive();
    const last = connection.next()!;
    assert.deepEqual([last.id, last.fdsLost], [1, true]);
    for (const fd of last.fds) closeFd(fd);
  });

  it('closes the descriptors of an unfinished message with the connection', () => {
    send(message(1, 64).subarray(0, 40), eventfds);
    connection.receive();
    // The check is in afterEach.
  });

  it('sends in order what the socket does not take at once', () => {
    const count = 30;
    for (let id = 0; id < count; id++) connection.send(message(id, 50_000), 50_000);
    assert.equal(connection.blocked, true);
    const buffer = Buffer.alloc(64 * 1024);
    const received: Buffer[] = [];
    for (let total = 0; total < count * 50_000; ) {
      const part = recvWithFds(peer, buffer, 0, buffer.length);
      if (part === 'would-block') connection.flush();
      else if (part !== 'closed') {
        total += part.byteCount;
        received.push(Buffer.from(buffer.subarray(0, part.byteCount)));
      }
    }
    assert.equal(connection.blocked, false);
    const expected = Buffer.concat(Array.from({ length: count }, (_, id) => message(id, 50_000)));
    assert.ok(Buffer.concat(received).equals(expected));
  });

  it('sends descriptors with the message even when it had to wait', () => {
    const filler = message(1, 50_000);
    while (!connection.blocked) connection.send(filler, filler.length);
    connection.send(message(2), HEADER_BYTES, [eventfds[2]!]);
    const buffer = Buffer.alloc(1024 * 1024);
    const fds: number[] = [];
    for (let quiet = 0; quiet < 2; ) {
      const part = recvWithFds(peer, buffer, 0, buffer.length);
      if (part === 'would-block') {
        connection.flush();
        quiet++;
      } else if (part !== 'closed') {
        fds.push(...part.fds);
        quiet = 0;
      }
    }
    assert.deepEqual(fds.map(indexOfEventfd), [2]);
    for (const fd of fds) closeFd(fd);
  });

  it('tells the end and the loss of the peer apart from nothing', () => {
    assert.equal(connection.receive(), 'would-block');
    closeFd(peer);
    assert.equal(connection.receive(), 'closed');
    assert.throws(() => connection.send(message(1), HEADER_BYTES), { errno: ERRNO.EPIPE });
    peer = createEventfd();
  });
});
