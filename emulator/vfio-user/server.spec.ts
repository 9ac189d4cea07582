import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { Bench } from '../../conformance/bench.js';
import { RawClient } from '../../conformance/client.js';
import { FixtureDevice } from '../../conformance/fixture-device.js';
import {
  accepted,
  assertInSync,
  deviceInfo,
  dmaMap,
  dmaUnmap,
  irqInfo,
  peek,
  readRegion,
  regionInfo,
  resetDevice,
  setIrqs,
  succeed,
  writeRegion,
} from '../../conformance/row.js';
import { closeFd, openFdCount } from '../host/index.js';
import { COMMAND, DMA_ACCESS, FLAG, IRQ_SET } from './messages.js';
import { FunctionServer } from './server.js';

const { NONE, EVENTFD, TRIGGER } = IRQ_SET;
const CONFIG = 7;

describe('vfio-user server', () => {
  let fdsBefore: number;
  let bench: Bench;

  beforeEach(() => {
    fdsBefore = openFdCount();
    bench = new Bench();
  });

  afterEach(() => {
    bench.close();
    assert.equal(openFdCount(), fdsBefore, 'descriptors left open');
  });

  it("serves QEMU's order from VERSION to the guest's first instruction (vfio-user.md §2.17)", () => {
    const ram = bench.memfd(0x100_0000);
    const maps = [
      dmaMap({ address: 0, sizeBytes: 0xa0000 }),
      dmaMap({ address: 0x10_0000, offset: 0x10_0000, sizeBytes: 0xf0_0000 }),
    ];
    for (const map of maps) bench.client.send(map, [ram]);
    bench.client.send(dmaMap({ address: 0xfffc_0000, sizeBytes: 0x4_0000, flags: 1 }));
    for (let i = 0; i < 3; i++) assert.deepEqual(pick(bench.client.receive()), [COMMAND.DMA_MAP, 16, FLAG.REPLY]);

    assert.equal(succeed(bench, deviceInfo()).sizeBytes, 32);
    for (const index of [0, 1, 2, 3, 4, 5, 7]) {
      const { bytes } = succeed(bench, regionInfo({ index }));
      const argsz = bytes.readUInt32LE(16);
      if (argsz === 32) continue;
      const { fds } = succeed(bench, regionInfo({ index, argsz }));
      assert.equal(fds.length, 1, `region ${index}`);
      closeFd(fds[0]!);
    }
    succeed(bench, irqInfo({ index: 3 }));
    assert.equal(peek(bench, CONFIG, 0, 4096).length, 4096);
    accepted(
      readRegion(CONFIG, 0x30, 4),
      writeRegion(CONFIG, 0x30, [0x00, 0xf8, 0xff, 0xff]),
      readRegion(CONFIG, 0x30, 4),
      writeRegion(CONFIG, 0x30, [0, 0, 0, 0]),
    )(bench);
    for (const register of [0x14, 0x18, 0x1c, 0x20]) peek(bench, CONFIG, register, 4);
    const msix = bench.device.config.find(0x11)!;
    accepted(
      readRegion(CONFIG, msix + 2, 2),
      readRegion(CONFIG, msix + 4, 4),
      readRegion(CONFIG, msix + 8, 4),
      irqInfo({ index: 2 }),
    )(bench);
    assert.deepEqual([...peek(bench, CONFIG, 0x3d, 1)], [0], 'no INTx');
    succeed(bench, setIrqs({ flags: EVENTFD | TRIGGER, index: 3, count: 1 }), [bench.eventfd()]);

    succeed(bench, writeRegion(CONFIG, 4, [0, 0]));
    succeed(bench, resetDevice());
    for (let bar = 0; bar < 6; bar++) succeed(bench, writeRegion(CONFIG, 0x10 + 4 * bar, [0, 0, 0, 0]));

    accepted(dmaUnmap({ address: 0xfffc_0000, sizeBytes: 0x4_0000 }))(bench);
    accepted(writeRegion(CONFIG, 0x18, [0, 0, 0, 0xfe]), writeRegion(CONFIG, 4, [6, 0]))(bench);
    assert.equal(bench.device.config.barAddress(2), 0xfe00_0000);
    succeed(bench, dmaMap({ address: 0xfe00_2000, sizeBytes: 0x1000 }));
    const msixEnable = setIrqs({ flags: EVENTFD | TRIGGER, index: 2, count: 1 });
    accepted(writeRegion(CONFIG, msix + 2, [0, 0x80]), msixEnable, setIrqs({ flags: NONE | TRIGGER, index: 2 }))(bench);
    assert.equal(bench.device.dmaSpace.mapCount, 3);
    // How long a request takes is the host's business.
    const complaints = bench.logged.filter(
      ({ level, message }) => (level === 'warn' || level === 'error') && !/^a request took/.test(message),
    );
    assert.deepEqual(complaints, []);
  });

  it('counts commands, errors and latencies', () => {
    for (let i = 0; i < 5; i++) peek(bench, 1, 0, 4);
    bench.request(readRegion(9, 0, 4));
    bench.request(Buffer.from(resetDevice()).fill(0xff, 2, 4));
    const { commands, connected, connections, queuedBytes, longestBatch } = bench.server.statistics();
    assert.deepEqual([connected, connections, queuedBytes, longestBatch], [true, 1, 0, 1]);
    assert.deepEqual(Object.keys(commands), ['VERSION', 'REGION_READ', 'unknown']);
    const reads = commands.REGION_READ!;
    assert.deepEqual([reads.count, reads.errors, commands.unknown?.errors], [6, 1, 1]);
    assert.equal(
      reads.latencyNsLog2.reduce((sum, count) => sum + count, 0),
      6,
    );
    assert.ok(reads.longestMs > 0 && reads.totalMs >= reads.longestMs);
  });

  it('stops serving a client that does not read its replies, and loses none', () => {
    const { client, device } = bench;
    const count = 200;
    const registers = Buffer.alloc(4096, 0xa5);
    device.registers.set(registers);
    for (let id = 0; id < count; id++) client.send(readRegion(1, 0, 4000, id));
    for (let turn = 0; turn < 20; turn++) bench.turn();
    const servedUnread = device.regionReads;
    assert.ok(servedUnread < count, `${servedUnread} of ${count} replies produced with nobody reading`);
    for (let id = 0; id < count; id++) {
      const reply = client.receive();
      assert.deepEqual([reply.id, reply.sizeBytes], [id, 4032]);
      assert.ok(reply.bytes.subarray(32).equals(registers.subarray(0, 4000)));
    }
    assert.equal(device.regionReads, count);
    assertInSync(bench);
  });

  it('serves another function of the machine while DMA by message is awaited, and refuses DMA there', () => {
    const gate = { depth: 0 };
    const serveBus = (timeoutMs: number) => bench.bus.serveReady(timeoutMs);
    const options = { log: bench.log(), watcher: bench.bus, gate, serveBus };
    const devices = [new FixtureDevice(), new FixtureDevice()];
    const servers = devices.map((device, i) => new FunctionServer(device, bench.path(`f${i}.sock`), options));
    const clients = servers.map(({ socketPath }) => bench.connect(socketPath));
    for (const client of clients) client.negotiate();
    let refusal: unknown;
    devices[1]!.onRead = () => {
      try {
        devices[0]!.channel!.dmaWrite(0, Uint8Array.of(1));
      } catch (error) {
        refusal = error;
      }
    };
    bench.bus.watch(clients[0]!.fd, () => {
      const request = clients[0]!.poll()!;
      // QEMU holds its big lock for a read of the other function; only then can it do the DMA.
      clients[1]!.request(readRegion(1, 0, 4));
      clients[0]!.send(dmaReply(request.id, Buffer.from('12345678')));
    });
    const target = Buffer.alloc(8);
    devices[0]!.channel!.dmaRead(0x1000, target);
    assert.equal(target.toString(), '12345678');
    assert.equal((refusal as { code?: string }).code, 'EDEADLK');
    bench.bus.unwatch(clients[0]!.fd);
    for (const server of servers) server.close();
    for (const device of devices) device.close();
  });

  it('waits for its own connection alone when there is no bus', () => {
    const device = new FixtureDevice();
    const server = new FunctionServer(device, bench.path('alone.sock'), { log: bench.log(), dmaTimeoutMs: 20 });
    const idle = () => {
      server.onListenReadable();
      server.onConnectionReadable();
    };
    const client = new RawClient(server.socketPath, { idle });
    client.negotiate();
    client.send(dmaReply(0, Buffer.from('abcd')));
    const target = Buffer.alloc(4);
    device.channel!.dmaRead(0, target);
    assert.equal(target.toString(), 'abcd');
    assert.throws(() => device.channel!.dmaRead(0, target), { code: 'ETIMEDOUT' });
    client.close();
    server.close();
    device.close();
  });

  it('serves what came in one read with the reply to a DMA message, before and behind it', () => {
    const { client, device } = bench;
    bench.bus.watch(client.fd, () => {
      const request = client.poll()!;
      if (request.command !== COMMAND.DMA_READ) return;
      const before = Buffer.concat([resetDevice(), dmaReply(request.id, Buffer.from('abcd')), resetDevice()]);
      client.send(before);
    });
    const target = Buffer.alloc(4);
    device.channel!.dmaRead(0, target);
    bench.bus.unwatch(client.fd);
    bench.turn();
    assert.equal(device.resets, 2);
  });

  it('does not wait for a DMA reply while a received request is unanswered: the client may wait for that first', () => {
    const { client, server, device } = bench;
    let dmaRead: number | undefined;
    let replies = 0;
    bench.bus.watch(client.fd, () => {
      for (let message = client.poll(); message !== undefined; message = client.poll()) {
        if (message.command === COMMAND.DMA_READ) dmaRead = message.id;
        else replies++;
      }
      if (dmaRead !== undefined && replies === 2) client.send(dmaReply(dmaRead, Buffer.from('abcd')));
    });
    client.send(Buffer.concat([resetDevice(), resetDevice()]));
    assert.equal(server.onConnectionReadable(1), 'more');
    const target = Buffer.alloc(4);
    device.channel!.dmaRead(0, target);
    assert.deepEqual([target.toString(), device.resets], ['abcd', 2]);
    bench.bus.unwatch(client.fd);
  });

  it('takes a limited number of messages when asked, and says that more are left', () => {
    const { client, server, device } = bench;
    client.send(Buffer.concat([resetDevice(), resetDevice(), resetDevice()]));
    assert.equal(server.onConnectionReadable(2), 'more');
    assert.equal(device.resets, 2);
    assert.equal(server.onConnectionReadable(2), 'idle');
    assert.equal(device.resets, 3);
    bench.disconnect();
    assert.equal(server.onConnectionReadable(), 'closed');
    bench.reconnect();
  });

  it('survives a device that fails outside region accesses, and answers EIO', () => {
    bench.device.reset = () => {
      throw new TypeError('reset has a bug');
    };
    assert.equal(bench.request(resetDevice()).errno, 5);
    assertInSync(bench);
    assert.ok(
      bench.logged.some(({ level, fields }) => level === 'error' && /reset has a bug/.test(`${fields?.stack}`)),
    );
  });

  it('reports refusals loudly, but not without end', () => {
    for (let i = 0; i < 100; i++) bench.request(readRegion(9, 0, 4));
    const loud = bench.logged.filter(({ level }) => level === 'warn');
    assert.equal(loud.length, 20);
    assert.match(`${loud[0]?.message} ${loud[0]?.fields?.reason}`, /REGION_READ refused read of region 9/);
  });

  it('removes its socket when closed; closing twice is harmless', () => {
    const { server } = bench;
    assert.ok(existsSync(server.socketPath));
    server.close();
    assert.ok(!existsSync(server.socketPath));
    assert.ok(bench.client.endedByServer());
    server.close();
  });
});

function pick({ command, sizeBytes, flags }: { command: number; sizeBytes: number; flags: number }): number[] {
  return [command, sizeBytes, flags];
}

/** As the specification has it. */
function dmaReply(id: number, data: Buffer): Buffer {
  return DMA_ACCESS.encode(id, COMMAND.DMA_READ, { count: data.length }, { flags: FLAG.REPLY, data });
}
