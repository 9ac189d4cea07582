import assert from 'node:assert/strict';
import { Bus, slowHandlersSummary } from './bus.js';
import { closeFd, createEventfd, drainEventfd, signalEventfd } from './host/index.js';
import { RecordingLog } from './testing/index.js';

const always = () => true;

describe('Bus', () => {
  let log: RecordingLog;
  let bus: Bus;
  let now: bigint;

  beforeEach(() => {
    now = 0n;
    log = new RecordingLog();
    bus = new Bus({ log, nowNs: () => now });
  });

  afterEach(() => bus.close());

  it('serves a request that already waits before it runs posted work', () => {
    const fd = createEventfd();
    const order: string[] = [];
    bus.watch(fd, () => {
      drainEventfd(fd);
      order.push('request');
    });
    bus.post(() => order.push('doorbell'), always);
    signalEventfd(fd);
    bus.turn(0);
    assert.deepEqual(order, ['request', 'doorbell']);
    bus.unwatch(fd);
    closeFd(fd);
  });

  it('runs the work of a doorbell after a store to another function that came before it, whichever socket is reported first', () => {
    const store = createEventfd();
    const doorbell = createEventfd();
    const order: string[] = [];
    bus.watch(store, () => {
      drainEventfd(store);
      order.push('store');
    });
    bus.watch(doorbell, () => {
      drainEventfd(doorbell);
      order.push('doorbell');
      bus.post(() => order.push('work'), always);
    });
    // epoll reports what was ready before first: a function that has just been served stands at the head of its list.
    signalEventfd(doorbell);
    bus.turn(0);
    order.length = 0;
    signalEventfd(store);
    signalEventfd(doorbell);
    bus.turn(0);
    assert.deepEqual(order, ['doorbell', 'store', 'work']);
    for (const fd of [store, doorbell]) {
      bus.unwatch(fd);
      closeFd(fd);
    }
  });

  it('looks for requests between two pieces of work', () => {
    const fd = createEventfd();
    const order: string[] = [];
    bus.watch(fd, () => {
      drainEventfd(fd);
      order.push('request');
    });
    bus.post(() => {
      order.push('slice 1');
      signalEventfd(fd);
      bus.post(() => order.push('slice 2'), always);
    }, always);
    while (!bus.resting) bus.turn(0);
    assert.deepEqual(order, ['slice 1', 'request', 'slice 2']);
    bus.unwatch(fd);
    closeFd(fd);
  });

  it('runs a register write by a peer right after the handler that caused it', () => {
    const order: string[] = [];
    bus.post(() => {
      bus.postPeerWrite(() => order.push('peer write'));
      order.push('end of handler');
    }, always);
    bus.post(() => order.push('later work'), always);
    while (!bus.resting) bus.turn(0);
    assert.deepEqual(order, ['end of handler', 'peer write', 'later work']);
  });

  it('drops work whose owner was reset', () => {
    let wanted = true;
    const order: string[] = [];
    bus.post(
      () => order.push('dropped'),
      () => wanted,
    );
    wanted = false;
    while (!bus.resting) bus.turn(0);
    assert.deepEqual(order, []);
  });

  it('runs timers when they are due and not before', () => {
    const order: string[] = [];
    bus.clock.after(5, () => order.push('timer'));
    bus.turn(0);
    assert.deepEqual(order, []);
    now = 5_000_000n;
    bus.turn(-1);
    assert.deepEqual(order, ['timer']);
  });

  it('goes on after a fault and reports it', () => {
    const order: string[] = [];
    bus.post(() => {
      throw new Error('boom');
    }, always);
    bus.post(() => order.push('still alive'), always);
    while (!bus.resting) bus.turn(0);
    assert.deepEqual(order, ['still alive']);
    assert.match(String(log.records[0]?.fields.stack), /boom/);
  });

  const slowWork = (ms: number, name?: string) => {
    bus.post(() => {
      if (name !== undefined) bus.attribute(name);
      now += BigInt(ms) * 1_000_000n;
    }, always);
    bus.turn(0);
  };

  it('notes a slow handler, and whose it was', () => {
    slowWork(80, 'gpu0');
    slowWork(70);
    assert.equal(bus.statistics().slowHandlers, 2);
    assert.deepEqual(
      log.records.map(({ level, message }) => [level, message]),
      [
        ['debug', "posted work for gpu0 took 80 ms; the virtual machine's processors may have waited for it"],
        ['debug', "posted work took 70 ms; the virtual machine's processors may have waited for it"],
      ],
    );
  });

  it('has one line about all slow handlers, with the longest', () => {
    slowWork(20, 'gpu0');
    assert.equal(slowHandlersSummary(bus.statistics()), undefined);
    slowWork(60, 'gpu0');
    assert.match(slowHandlersSummary(bus.statistics())!, /^one handler took 60 ms \(posted work for gpu0\); /);
    slowWork(90, 'rdma0');
    slowWork(70, 'gpu0');
    assert.match(
      slowHandlersSummary(bus.statistics())!,
      /^3 handlers were late, the longest took 90 ms \(posted work for rdma0\); /,
    );
  });

  it('knows whose a handler is also after it let others be served', () => {
    const fd = createEventfd();
    bus.watch(fd, () => {
      drainEventfd(fd);
      bus.attribute('rdma0');
    });
    bus.post(() => {
      bus.attribute('gpu0');
      signalEventfd(fd);
      bus.serveReady(0);
      now += 60_000_000n;
    }, always);
    bus.turn(0);
    assert.deepEqual(bus.statistics().slowest, { what: 'posted work for gpu0', tookMs: 60 });
    bus.unwatch(fd);
    closeFd(fd);
  });

  it('does not blame a handler for the time in which it let others be served', () => {
    const fd = createEventfd();
    bus.watch(fd, () => {
      drainEventfd(fd);
      now += 30_000_000n;
    });
    bus.post(() => {
      for (let i = 0; i < 3; i++) {
        signalEventfd(fd);
        bus.serveReady(0);
      }
      now += 30_000_000n;
    }, always);
    bus.turn(0);
    assert.equal(bus.statistics().slowHandlers, 0);
    bus.unwatch(fd);
    closeFd(fd);
  });

  it('stops when it is told to, also from a handler', () => {
    bus.post(() => bus.stop(), always);
    bus.run();
    assert.ok(bus.resting);
  });
});
