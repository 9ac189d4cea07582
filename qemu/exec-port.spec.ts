import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { ExecPort } from './exec-port.js';
import { splitWaitStatus } from './running-command.js';

function frame(letter: string, payload: Buffer | number): Buffer {
  const bytes = typeof payload === 'number' ? Buffer.alloc(4) : payload;
  if (typeof payload === 'number') bytes.writeUInt32LE(payload);
  const header = Buffer.alloc(5, letter);
  header.writeUInt32LE(bytes.length, 1);
  return Buffer.concat([header, bytes]);
}

describe('ExecPort', () => {
  const listen = () => {
    const events: string[] = [];
    const port = new ExecPort('test', new PassThrough());
    const token = port.expect({
      onStarted: (pid) => events.push(`pid ${pid}`),
      onStdout: (chunk) => events.push(`out ${chunk}`),
      onStderr: (chunk) => events.push(`err ${chunk}`),
      onExit: (status) => events.push(`exit ${status}`),
    });
    return { events, port, token };
  };
  const everything = ['pid 7', 'out hello', 'err oh', 'exit 768'];
  const stream = (token: string) =>
    Buffer.concat([
      Buffer.from(token),
      frame('p', 7),
      frame('o', Buffer.from('hello')),
      frame('e', Buffer.from('oh')),
      frame('x', 768),
    ]);

  it('delivers frames however the bytes arrive', () => {
    for (const size of [1, 2, 7, 1000]) {
      const { events, port, token } = listen();
      const bytes = stream(token);
      for (let at = 0; at < bytes.length; at += size) port.receive(bytes.subarray(at, at + size));
      assert.deepEqual(events, everything, `in pieces of ${size}`);
    }
  });

  it('skips what a killed predecessor left', () => {
    const { events, port, token } = listen();
    const leftover = Buffer.concat([
      frame('o', Buffer.alloc(5000, 'x')).subarray(0, 4000),
      Buffer.from(token.slice(0, 9)),
    ]);
    for (const byte of leftover) port.receive(Buffer.from([byte]));
    port.receive(stream(token));
    assert.deepEqual(events, everything);
  });

  it('gives up on a frame that the guest claims to be huge', () => {
    const { events, port, token } = listen();
    port.receive(Buffer.concat([Buffer.from(token), Buffer.from([0x6f, 0xff, 0xff, 0xff, 0xff]), frame('x', 0)]));
    assert.deepEqual(events, []);
    assert.equal(port.busy, false);
  });

  it('splits a wait status', () => {
    assert.deepEqual(splitWaitStatus(0x300), { exitCode: 3, signal: undefined });
    assert.deepEqual(splitWaitStatus(9), { exitCode: undefined, signal: 9 });
    assert.deepEqual(splitWaitStatus(0x8b), { exitCode: undefined, signal: 11 }, 'with a core dump');
  });
});
