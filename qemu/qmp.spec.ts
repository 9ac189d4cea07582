import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Duplex } from 'node:stream';
import { QmpClient, QmpError } from './qmp.js';

/** The other side: what it was sent, and a way to answer. */
class FakePeer extends Duplex {
  readonly received: { execute: string; arguments: Record<string, unknown> }[] = [];
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.received.push(JSON.parse(chunk.toString()));
    done();
  }
  say(...messages: unknown[]): void {
    for (const message of messages) this.push(`${JSON.stringify(message)}\r\n`);
  }
}

describe('QmpClient', () => {
  it('gives each command its own answer, past greeting and events', async () => {
    const peer = new FakePeer();
    const client = new QmpClient(peer);
    const stopped = once(client, 'STOP');
    const answers = [client.execute('first', { a: 1 }), client.execute('second')];
    peer.say({ QMP: {} }, { return: 1 }, { event: 'STOP', data: { why: 'x' } }, { return: 2 });
    assert.deepEqual(await Promise.all(answers), [1, 2]);
    assert.deepEqual(await stopped, [{ why: 'x' }]);
    assert.deepEqual(peer.received[0], { execute: 'first', arguments: { a: 1 } });
  });

  it('turns an error answer into an error that names the command', async () => {
    const peer = new FakePeer();
    const answer = new QmpClient(peer).execute('device_add');
    peer.say({ error: { class: 'GenericError', desc: 'no such bus' } });
    await assert.rejects(answer, (error) => error instanceof QmpError && error.message === 'device_add: no such bus');
  });

  it('skips answers to an earlier connection when it synchronizes', async () => {
    const peer = new FakePeer();
    const client = new QmpClient(peer);
    const lost = client.execute('guest-exec');
    client.fail(new Error('reset'));
    await assert.rejects(lost, /reset/);
    const synchronized = client.synchronize();
    const next = client.execute('guest-ping');
    await new Promise(setImmediate);
    const { id } = peer.received[1]!.arguments;
    peer.say({ return: { pid: 5 } }, { error: { class: 'GenericError', desc: 'old' } }, { return: id }, { return: {} });
    await synchronized;
    assert.deepEqual(await next, {});
  });

  it('takes no harm from what is not JSON', async () => {
    const peer = new FakePeer();
    const answer = new QmpClient(peer).execute('x');
    peer.push('garbage\n{"return"');
    peer.push(': 3}\n');
    assert.equal(await answer, 3);
  });
});
