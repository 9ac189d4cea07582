import assert from 'node:assert/strict';
import { FLAG, VERSION } from '../messages.js';
import type { Bench } from '../test-bench.js';
import { encodeVersion, QEMU_CAPABILITIES } from '../test-client.js';
import { assertError, assertInSync, dmaMap, fail, type Row, raw } from './row.js';

const ID = 0x2b;
const MAX_MESSAGE_BYTES = 1024 * 1024 + 32;

/** The first message: refused, and the connection is over; the next client is served. */
function refusedFirst(message: Buffer, fdCount = 0) {
  return (bench: Bench) => {
    const fds = Array.from({ length: fdCount }, () => bench.eventfd());
    assertError(bench.client.request(message, fds), message);
    assert.ok(bench.client.endedByServer(), 'the connection should be refused');
    bench.reconnect();
    assertInSync(bench);
  };
}

const refusedJson = (data: string) => refusedFirst(encodeVersion(ID, data));
const refusedCapability = (json: string) => refusedJson(`{"capabilities":{${json}}}\0`);

interface Announcement {
  readonly capabilities: Record<string, unknown>;
}

function negotiated(bench: Bench, message: Buffer): { minor: number; sizeBytes: number; json: Announcement } {
  const reply = bench.client.request(message);
  assert.deepEqual([reply.flags, reply.id], [FLAG.REPLY, message.readUInt16LE(0)]);
  const { major, minor } = VERSION.decode(reply.bytes);
  assert.equal(major, 0);
  assert.equal(reply.bytes.at(-1), 0, 'NUL at the end');
  const json = JSON.parse(reply.bytes.subarray(VERSION.sizeBytes, -1).toString()) as Announcement;
  assertInSync(bench);
  return { minor, sizeBytes: reply.sizeBytes, json };
}

function accepts(message: Buffer) {
  return (bench: Bench) => {
    const { json } = negotiated(bench, message);
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
      run: (bench) => {
        const message = encodeVersion(ID, '{}\0');
        message.writeUInt32LE(MAX_MESSAGE_BYTES + 1, 4);
        refusedFirst(message)(bench);
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
      run: (bench) => {
        refusedCapability('"twin_socket":true')(bench);
        bench.disconnect();
        bench.turn();
        bench.client = bench.connect();
        refusedCapability('"twin_socket":{"supported":1}')(bench);
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
      run: (bench) => assert.equal(negotiated(bench, encodeVersion(ID, '{}\0')).minor, 0),
    },
    {
      id: 'V-23',
      what: "minor 1, 2, 7: reply minor not above the client's",
      run: (bench) => {
        for (const minor of [1, 2, 7]) {
          assert.ok(negotiated(bench, encodeVersion(ID, '{}\0', 0, minor)).minor <= minor);
          bench.disconnect();
          bench.turn();
          bench.client = bench.connect();
        }
      },
    },
    {
      id: 'V-24',
      what: "QEMU 10.2.2's 214 bytes: 121 bytes back, no write_multiple",
      run: (bench) => {
        const request = encodeVersion(ID, `${QEMU_CAPABILITIES}\0`);
        assert.equal(request.length, 214);
        const { sizeBytes, json } = negotiated(bench, request);
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
      run: (bench) => {
        bench.client.negotiate();
        fail(bench, encodeVersion(ID, '{}\0'));
        assertInSync(bench);
      },
    },
    {
      id: 'V-27',
      what: 'disconnect right after VERSION: noticed, listens again',
      run: (bench) => {
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
      run: (bench) => {
        refusedCapability('"pgsizes":"4k"')(bench);
        bench.disconnect();
        bench.turn();
        bench.client = bench.connect();
        refusedCapability('"max_dma_maps":{}')(bench);
      },
    },
  ] satisfies Row[]
).map((row) => ({ ...row, negotiated: false }));
