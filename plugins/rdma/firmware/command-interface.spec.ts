import assert from 'node:assert/strict';
import { TestBus } from 'ghostbus/testing';
import { cmdHcaCap } from '../layouts/capabilities.js';
import { subview } from '../layouts/layout.js';
import { TestDriver } from '../test/driver.js';
import { STATUS } from './command.js';

const header = () => new DataView(new ArrayBuffer(16));

describe('command interface', () => {
  let driver: TestDriver;

  beforeEach(() => {
    driver = new TestDriver(new TestBus(16 * 1024 * 1024), 'rdma0', 0, 0x10000);
  });

  it('answers a command whose output needs mailboxes', () => {
    const { output } = driver.run('QUERY_HCA_CAP', header(), 1);
    const page = subview(output, 16);
    assert.equal(cmdHcaCap.get(page, 'num_ports'), 1);
    assert.equal(cmdHcaCap.get(page, 'port_type'), 1);
  });

  it('refuses what it does not know, and says so', () => {
    const answer = driver.command(0x7ff, header());
    assert.equal(answer.status, STATUS.BAD_OPERATION);
    assert.ok(driver.fn.log.records.some(({ message }) => message === 'unimplemented command'));
  });

  // core/cmd.c deliv_status_to_str
  for (const [what, delivery, spoil] of [
    ['a wrong signature', 1, (slot: DataView) => slot.setUint8(61, slot.getUint8(61) ^ 1)],
    ['a mailbox with another token', 2, (_slot: DataView, box: DataView) => box.setUint8(573, 0xee)],
    ['a mailbox with another number', 3, (_slot: DataView, box: DataView) => box.setUint32(568, 7)],
    ['a mailbox at a crooked address', 5, (slot: DataView) => redirect(slot, 8, 0x10001n)],
    ['an input of no length', 7, (slot: DataView) => sign(slot, () => slot.setUint32(4, 0))],
    ['an input of 2 GiB', 7, (slot: DataView) => sign(slot, () => slot.setUint32(4, 0x80000000))],
    ['an output of 2 GiB', 8, (slot: DataView) => sign(slot, () => slot.setUint32(56, 0x80000000))],
  ] as const) {
    it(`does not deliver ${what}`, () => {
      const answer = driver.raw(new Uint8Array(64), 64, spoil);
      assert.equal(answer.delivery, delivery);
    });
  }

  it('survives a queue that is nowhere', () => {
    driver.fn.write(0, 0x10, 0xffffffff);
    driver.fn.write(0, 0x18, 0xffffffff);
    driver.bus.run();
    assert.ok(driver.fn.log.records.some(({ message }) => message.startsWith('a command was lost')));
  });

  it('lets the queue of command events complete by polling, and sends events afterwards', () => {
    const { ring } = driver.createEq(3, 1n << 10n);
    assert.equal(driver.memory.getUint8(ring + 1), 0, 'no event for the command that made the queue');
    driver.run('NOP');
    assert.equal(driver.memory.getUint8(ring + 1), 0x0a);
    assert.equal(driver.memory.getUint32(ring + 32), 1, 'slot 0');
    assert.equal(driver.memory.getUint8(ring + 63), 0, 'owner bit of the first round');
  });

  it('leaves a command unanswered when a test asks for it', () => {
    driver.control('swallow-command', { command: 'NOP' });
    assert.throws(() => driver.run('NOP'), /still owns the slot/);
    driver.run('NOP');
  });

  it('answers it late when a test asks for that too, once and with an error', () => {
    const { ring } = driver.createEq(3, 1n << 10n);
    driver.control('swallow-command', { command: 'NOP' });
    assert.throws(() => driver.run('NOP'), /still owns the slot/);
    assert.equal(driver.memory.getUint8(ring + 1), 0, 'no event');
    assert.equal(driver.control('answer-late', {}), 1);
    assert.equal(driver.memory.getUint8(ring + 1), 0x0a);
    assert.equal(driver.control('answer-late', {}), 0);
  });
});

function redirect(slot: DataView, offset: number, address: bigint): void {
  sign(slot, () => slot.setBigUint64(offset, address));
}

function sign(slot: DataView, change: () => void): void {
  change();
  slot.setUint8(61, 0);
  let sum = 0;
  for (let at = 0; at < 64; at++) sum ^= slot.getUint8(at);
  slot.setUint8(61, ~sum & 0xff);
}
