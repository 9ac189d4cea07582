import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Duplex } from 'node:stream';
import { QmpClient, QmpError } from './qmp.js';

interface Request {
  execute: string;
  arguments: Record<string, unknown>;
  id: number;
}

/** The other side: what it was sent, and a way to answer. */
class FakePeer extends Duplex {
  readonly received: Request[] = [];
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.received.push(JSON.parse(chunk.toString()));
    done();
  }
  say(...messages: unknown[]): void {
    for (const message of messages) this.push(`${JSON.stringify(message)}\r\n`);
  }
  answer(index: number, message: object): void {
    this.say({ ...message, id: this.received[index]!.id });
  }
}

describe('QmpClient', () => {
  it('gives each command its own answer, in whatever order, past greeting and events', async () => {
    const peer = new FakePeer();
    const client = new QmpClient(peer);
    const stopped = once(client, 'STOP');
    const answers = [client.execute('first', { a: 1 }), client.execute('second')];
    peer.say({ QMP: {} });
    peer.answer(1, { return: 2 });
    peer.say({ event: 'STOP', data: { why: 'x' } });
    peer.answer(0, { return: 1 });
    assert.deepEqual(await Promise.all(answers), [1, 2]);
    assert.deepEqual(await stopped, [{ why: 'x' }]);
    assert.equal(peer.received[0]!.execute, 'first');
    assert.deepEqual(peer.received[0]!.arguments, { a: 1 });
  });

  it('turns an error answer into an error that names the command', async () => {
    const peer = new FakePeer();
    const answer = new QmpClient(peer).execute('device_add');
    peer.answer(0, { error: { class: 'GenericError', desc: 'no such bus' } });
    await assert.rejects(answer, (error) => error instanceof QmpError && error.message === 'device_add: no such bus');
  });

  it('gives no command the answer of another that was lost, came twice or came late', async () => {
    const peer = new FakePeer();
    const client = new QmpClient(peer);
    const lost = client.execute('guest-exec');
    client.fail(new Error('reset'));
    await assert.rejects(lost, /reset/);
    const next = client.execute('guest-exec');
    peer.answer(0, { return: { pid: 1 } });
    peer.answer(0, { return: { pid: 1 } });
    peer.answer(1, { return: { pid: 2 } });
    assert.deepEqual(await next, { pid: 2 });
  });

  it('says that a request could not be read', async () => {
    const peer = new FakePeer();
    const answer = new QmpClient(peer).execute('guest-exec');
    peer.say({ error: { class: 'GenericError', desc: 'JSON parse error' } });
    await assert.rejects(answer, /guest-exec: JSON parse error/);
  });

  it('synchronizes past what an earlier agent had read half of', async () => {
    const peer = new FakePeer();
    const synchronized = new QmpClient(peer).synchronize();
    peer.say({ error: { class: 'GenericError', desc: 'JSON parse error' } });
    peer.answer(0, { return: {} });
    await synchronized;
  });

  it('sends one request at a time when asked to', async () => {
    const peer = new FakePeer();
    const client = new QmpClient(peer, { pipelined: false });
    const answers = [client.execute('first'), client.execute('second')];
    assert.deepEqual(
      peer.received.map(({ execute }) => execute),
      ['first'],
    );
    peer.answer(0, { return: 1 });
    await answers[0];
    assert.equal(peer.received[1]?.execute, 'second');
    peer.answer(1, { return: 2 });
    assert.deepEqual(await Promise.all(answers), [1, 2]);
  });

  it('takes no harm from what is not JSON', async () => {
    const peer = new FakePeer();
    const answer = new QmpClient(peer).execute('x');
    peer.push('garbage\n{"return"');
    peer.push(`: 3, "id": ${peer.received[0]!.id}}\n`);
    assert.equal(await answer, 3);
  });
});
