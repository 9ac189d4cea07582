import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { type AgentLimits, AgentLink } from './agent-link.js';
import { GuestTimeoutError } from './errors.js';
import { QmpClient } from './qmp.js';

interface Request {
  execute: string;
  id: number;
}

/** An agent behind its port: what it was sent, and what it says. */
class FakeAgent extends Duplex {
  readonly received: Request[] = [];
  sentinels = 0;
  /** Whether what is sent arrives. */
  connected = true;
  answersPings = true;

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    if (this.connected) this.#take(chunk);
    done();
  }

  #take(chunk: Buffer): void {
    if (chunk[0] === 0xff) {
      this.sentinels++;
      this.push(`${JSON.stringify({ error: { class: 'GenericError', desc: 'Invalid JSON syntax' } })}\n`);
      return;
    }
    const request: Request = JSON.parse(chunk.toString());
    if (request.execute !== 'guest-ping') this.received.push(request);
    else if (this.answersPings) this.#say(request, {});
  }

  get commands(): string[] {
    return this.received.map(({ execute }) => execute);
  }

  answer(index: number, value: unknown): void {
    this.#say(this.received[index]!, value);
  }

  #say({ id }: Request, value: unknown): void {
    this.push(`${JSON.stringify({ return: value, id })}\n`);
  }
}

const LONG_MS = 60_000;
const SHORT_MS = 20;

function connect(limits: Partial<AgentLimits> = {}) {
  const agent = new FakeAgent();
  const lost: string[] = [];
  let replugs = 0;
  let naps = 0;
  const link: AgentLink = new AgentLink({
    client: new QmpClient(agent, { pipelined: false }),
    ...{ answerMs: LONG_MS, sleepMs: LONG_MS, wakeAnswerMs: LONG_MS, ...limits },
    replug: async () => {
      replugs++;
      agent.connected = true;
      agent.answersPings = true;
      link.agentChanged(false);
      link.agentChanged(true);
    },
    lost: (error) => lost.push(error.message),
    awake: () => {
      naps++;
    },
    consoleTail: () => '',
  });
  link.agentChanged(true);
  /** As the guest's kernel resets the controller: every port closes, the terminal first. */
  const sleep = () => {
    link.terminalChanged(false);
    link.agentChanged(false);
    agent.connected = false;
  };
  const wake = () => {
    agent.connected = true;
    link.terminalChanged(true);
    link.agentChanged(true);
  };
  return { agent, link, lost, sleep, wake, replugs: () => replugs, naps: () => naps };
}

describe('AgentLink', () => {
  it('keeps nobody waiting once the machine is gone', async () => {
    const { agent, link } = connect();
    agent.connected = false;
    const waiting = link.ask('guest-exec', {});
    link.machineGone(new Error('QEMU ended'));
    await assert.rejects(waiting, /QEMU ended/);
    await assert.rejects(link.ask('guest-exec-status', {}), /QEMU ended/);
  });

  it('asks again, after a suspend, what the agent had not read', async () => {
    const { agent, link, lost, sleep, wake } = connect();
    agent.connected = false;
    const answer = link.ask('guest-exec', {});
    sleep();
    wake();
    await turn();
    assert.deepEqual(agent.commands, ['guest-exec']);
    assert.equal(agent.sentinels, 1);
    agent.answer(0, { pid: 7 });
    assert.deepEqual(await answer, { pid: 7 });
    assert.deepEqual(lost, []);
  });

  it('does not ask again what the agent had read, so that no command runs twice', async () => {
    const { agent, link, sleep, wake } = connect();
    const answer = link.ask('guest-exec', {});
    sleep();
    wake();
    // Before it reads what came later.
    agent.answer(0, { pid: 7 });
    assert.deepEqual(await answer, { pid: 7 });
    await turn();
    assert.deepEqual(agent.commands, ['guest-exec']);
  });

  it('keeps what is asked of a sleeping guest until it is awake', async () => {
    const { agent, link, sleep, wake, naps } = connect();
    sleep();
    const answers = [link.ask('first', {}), link.ask('second', {})];
    assert.ok(link.asleep);
    agent.connected = true;
    await turn();
    assert.deepEqual(agent.commands, []);
    wake();
    await turn();
    agent.answer(0, 1);
    assert.equal(await answers[0], 1);
    agent.answer(1, 2);
    assert.equal(await answers[1], 2);
    assert.ok(!link.asleep);
    assert.equal(naps(), 1);
  });

  it('does not count the sleep as time that the agent took', async () => {
    const { agent, link, sleep, wake } = connect({ answerMs: SHORT_MS });
    sleep();
    const answer = link.ask('guest-exec', {});
    await new Promise((resolve) => setTimeout(resolve, 3 * SHORT_MS));
    wake();
    await turn();
    agent.answer(0, {});
    await answer;
  });

  it('says that a guest hangs, and that one does not wake up', async () => {
    const hung = connect({ answerMs: SHORT_MS });
    await assert.rejects(hung.link.ask('guest-exec', {}), GuestTimeoutError);
    const { link, sleep } = connect({ sleepMs: SHORT_MS });
    const answer = link.ask('guest-exec', {});
    sleep();
    await assert.rejects(answer, /went to sleep and was not awake again after 0\.02 s/);
  });

  it('plugs the ports in anew, once, for a kernel that forgets to ask for their state', async () => {
    const { agent, link, lost, sleep, wake, replugs } = connect({ wakeAnswerMs: SHORT_MS });
    sleep();
    const answer = link.ask('guest-exec', {});
    agent.answersPings = false;
    wake();
    await new Promise((resolve) => link.on('change', () => link.asleep || resolve(undefined)));
    assert.equal(replugs(), 1);
    await turn();
    agent.answer(0, {});
    await answer;
    assert.deepEqual(lost, []);
  });

  it('loses everything when the agent alone ends, and asks the next one', async () => {
    const { agent, link, lost } = connect();
    const answer = link.ask('guest-exec', {});
    link.agentChanged(false);
    await assert.rejects(answer, /agent ended/);
    assert.match(lost.join(), /agent ended/);
    link.agentChanged(true);
    const next = link.ask('guest-exec-status', {});
    agent.answer(1, {});
    await next;
  });

  it('loses everything at a reset, also in a sleep, and is ready again afterwards', async () => {
    const { agent, link, lost, sleep } = connect();
    sleep();
    const answer = link.ask('guest-exec', {});
    link.machineReset();
    await assert.rejects(answer, /was reset/);
    assert.match(lost.join(), /was reset/);
    const ready = link.ready();
    agent.connected = true;
    link.agentChanged(true);
    await ready;
  });

  it('falls asleep again while it wakes up', async () => {
    const { agent, link, sleep, wake } = connect();
    sleep();
    const answer = link.ask('guest-exec', {});
    agent.answersPings = false;
    wake();
    sleep();
    agent.answersPings = true;
    await turn();
    assert.ok(link.asleep);
    wake();
    await turn();
    agent.answer(0, {});
    await answer;
  });
});
