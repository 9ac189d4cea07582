import assert from 'node:assert/strict';
import { FLAG, VERSION } from '../../emulator/vfio-user/messages.js';
import { encodeVersion, QEMU_CAPABILITIES } from '../client.js';
import { assertError, assertInSync, dmaMap, fail, type Row, raw } from '../row.js';
import type { Wire } from '../wire.js';

const ID = 0x2b;
const MAX_MESSAGE_BYTES = 1024 * 1024 + 32;

/** The first message: refused, and the connection is over; the next client is served. */
function refusedFirst(message: Buffer, fdCount = 0) {
  return (wire: Wire) => {
    const fds = Array.from({ length: fdCount }, () => wire.eventfd());
    assertError(wire.client.request(message, fds), message);
    assert.ok(wire.client.endedByServer(), 'the connection should be refused');
    wire.reconnect();
    assertInSync(wire);
  };
}

const refusedJson = (data: string) => refusedFirst(encodeVersion(ID, data));
const refusedCapability = (json: string) => refusedJson(`{"capabilities":{${json}}}\0`);

interface Announcement {
  readonly capabilities: Record<string, unknown>;
}

function negotiated(wire: Wire, message: Buffer): { minor: number; sizeBytes: number; json: Announcement } {
  const reply = wire.client.request(message);
  assert.deepEqual([reply.flags, reply.id], [FLAG.REPLY, message.readUInt16LE(0)]);
  const { major, minor } = VERSION.decode(reply.bytes);
  assert.equal(major, 0);
  assert.equal(reply.bytes.at(-1), 0, 'NUL at the end');
  const json = JSON.parse(reply.bytes.subarray(VERSION.sizeBytes, -1).toString()) as Announcement;
  assertInSync(wire);
  return { minor, sizeBytes: reply.sizeBytes, json };
}

function accepts(message: Buffer) {
  return (wire: Wire) => {
    const { json } = negotiated(wire, message);
    assert.deepEqual(json.capabilities, {
      max_msg_fds: 16,
      max_data_xfer_size: 1048576,
      max_dma_maps: 65535,
      pgsizes: 4096,
    });
  };
}

export const VERSION_ROWS: readonly Row[] = (
  [
    { id: 'V-01', what: 'no body: EINVAL', run: refusedFirst(raw(1)) },
    {
      id: 'V-02',
      what: 'larger than the largest message: EINVAL, server survives',
      run: (wire) => {
        const message = encodeVersion(ID, '{}\0');
        message.writeUInt32LE(MAX_MESSAGE_BYTES + 1, 4);
        refusedFirst(message)(wire);
      },
    },
    { id: 'V-03', what: 'first command 999: EINVAL, refused', run: refusedFirst(raw(999)) },
    { id: 'V-04', what: 'first command DMA_MAP: EINVAL', run: refusedFirst(dmaMap({ address: 0x1000 })) },
    { id: 'V-05', what: 'major 999: EINVAL', run: refusedFirst(encodeVersion(ID, '{}\0', 999)) },
    { id: 'V-06', what: '{} without NUL: EINVAL', run: refusedJson('{}') },
    { id: 'V-07', what: '"{": EINVAL', run: refusedJson('{\0') },
    { id: 'V-08', what: 'a lone quote: EINVAL', run: refusedJson('"\0') },
    { id: 'V-09', what: 'capabilities is a string: EINVAL', run: refusedJson('{"capabilities":"x"}\0') },
    { id: 'V-10', what: 'max_msg_fds "foo": EINVAL', run: refusedCapability('"max_msg_fds":"foo"') },
    { id: 'V-11', what: 'max_msg_fds -1: EINVAL', run: refusedCapability('"max_msg_fds":-1') },
    { id: 'V-12', what: 'max_msg_fds 1025: EINVAL', run: refusedCapability('"max_msg_fds":1025') },
    { id: 'V-13', what: 'migration is a string: EINVAL', run: refusedCapability('"migration":"x"') },
    { id: 'V-14', what: 'migration.pgsize "foo": EINVAL', run: refusedCapability('"migration":{"pgsize":"foo"}') },
    { id: 'V-15', what: 'migration.pgsize 4095: EINVAL', run: refusedCapability('"migration":{"pgsize":4095}') },
    { id: 'V-16', what: 'max_data_xfer_size "x": EINVAL', run: refusedCapability('"max_data_xfer_size":"x"') },
    {
      id: 'V-17',
      what: 'twin_socket no object, supported no bool: EINVAL',
      run: (wire) => {
        refusedCapability('"twin_socket":true')(wire);
        wire.disconnect();
        wire.turn();
        wire.client = wire.connect();
        refusedCapability('"twin_socket":{"supported":1}')(wire);
      },
    },
    { id: 'V-18', what: 'no JSON at all: OK with capabilities', run: accepts(encodeVersion(ID, '')) },
    { id: 'V-19', what: '{}: OK', run: accepts(encodeVersion(ID, '{}\0')) },
    {
      id: 'V-20',
      what: 'max_msg_fds 1024, max_data_xfer_size 1 MiB: OK',
      run: accepts(encodeVersion(ID, '{"capabilities":{"max_msg_fds":1024,"max_data_xfer_size":1048576}}\0')),
    },
    { id: 'V-21', what: 'fds attached: EINVAL, closed', run: refusedFirst(encodeVersion(ID, '{}\0'), 2) },
    {
      id: 'V-22',
      what: 'minor 0: reply minor 0',
      run: (wire) => assert.equal(negotiated(wire, encodeVersion(ID, '{}\0')).minor, 0),
    },
    {
      id: 'V-23',
      what: "minor 1, 2, 7: reply minor not above the client's",
      run: (wire) => {
        for (const minor of [1, 2, 7]) {
          assert.ok(negotiated(wire, encodeVersion(ID, '{}\0', 0, minor)).minor <= minor);
          wire.disconnect();
          wire.turn();
          wire.client = wire.connect();
        }
      },
    },
    {
      id: 'V-24',
      what: "QEMU 10.2.2's 214 bytes: 121 bytes back, no write_multiple",
      run: (wire) => {
        const request = encodeVersion(ID, `${QEMU_CAPABILITIES}\0`);
        assert.equal(request.length, 214);
        const { sizeBytes, json } = negotiated(wire, request);
        assert.equal(sizeBytes, 121);
        assert.equal(json.capabilities.write_multiple, undefined);
      },
    },
    {
      id: 'V-25',
      what: 'unknown keys: ignored',
      run: accepts(encodeVersion(ID, '{"foo":1,"capabilities":{"foo":[],"sparse_mmap_fds":true}}\0')),
    },
    {
      id: 'V-26',
      what: 'a second VERSION: EINVAL, in sync',
      run: (wire) => {
        wire.client.negotiate();
        fail(wire, encodeVersion(ID, '{}\0'));
        assertInSync(wire);
      },
    },
    {
      id: 'V-27',
      what: 'disconnect right after VERSION: noticed, listens again',
      inside: (bench) => {
        bench.client.send(encodeVersion(ID, '{}\0'));
        bench.disconnect();
        bench.turn();
        bench.turn();
        assert.equal(bench.server.connectionFd, undefined);
        bench.client = bench.connect();
        accepts(encodeVersion(ID, '{}\0'))(bench);
      },
    },
    {
      id: 'V-28',
      what: 'pgsizes, max_dma_maps of a wrong type: EINVAL',
      run: (wire) => {
        refusedCapability('"pgsizes":"4k"')(wire);
        wire.disconnect();
        wire.turn();
        wire.client = wire.connect();
        refusedCapability('"max_dma_maps":{}')(wire);
      },
    },
  ] satisfies Row[]
).map((row) => ({ ...row, negotiated: false }));
