import assert from 'node:assert/strict';
import { GuestError } from '../qemu/index.js';
import { DriverNotBoundError, parseLook, requireBound } from './bound-functions.js';

const FUNCTIONS = [
  { name: 'gpu0', vendorId: 0x1002, deviceId: 0x7af0 },
  { name: 'gpu1', vendorId: 0x1002, deviceId: 0x7af0 },
  { name: 'habana0', vendorId: 0x1da3, deviceId: 0x1000 },
].map(({ name, ...ids }) => ({
  name,
  identity: { ...ids, subsystemVendorId: 0, subsystemId: 0, classCode: 0, revisionId: 0 },
}));

const BOUND = 'bound 0000:01:00.0 1002:7af0\nbound 0000:02:00.0 1002:7af0\nbound 0000:03:00.0 1da3:1000\n';
const GPU1_UNBOUND = BOUND.replace('bound 0000:02:00.0 1002:7af0', 'unbound 0000:02:00.0 1002:7af0 amdgpu');

const LOG = `[    1.0] pci 0000:01:00.0: [1002:7af0] type 00
[    9.1] amdgpu 0000:02:00.0: amdgpu: Fatal error during GPU init
[    9.2] amdgpu 0000:02:00.0: probe with driver amdgpu failed with error -12
`;

/** A guest that shows these one after another, and the last one from then on. */
class StubGuest {
  settled = 0;
  looks = 0;
  readonly asked: (readonly string[])[] = [];
  readonly #shown: readonly string[];

  constructor(...shown: readonly string[]) {
    this.#shown = shown;
  }

  async capture(argv: readonly string[]) {
    this.asked.push(argv);
    const text = this.#shown[Math.min(this.looks++, this.#shown.length - 1)]!;
    return { exitCode: 0, signal: undefined, stdout: Buffer.from(text), stderr: Buffer.alloc(0) };
  }

  async dmesg(): Promise<string> {
    return LOG;
  }

  async settle(): Promise<void> {
    this.settled++;
  }
}

describe('functions and their drivers in a guest', () => {
  it('are looked at once when all are bound, by their ids', async () => {
    const guest = new StubGuest(BOUND);
    await requireBound(guest, FUNCTIONS);
    assert.deepEqual([guest.looks, guest.settled], [1, 0]);
    assert.deepEqual(guest.asked[0]?.slice(4), ['1002:7af0', '1da3:1000']);
  });

  it('are not asked for where there are none', async () => {
    const guest = new StubGuest('');
    await requireBound(guest, []);
    assert.equal(guest.looks, 0);
  });

  it('are looked at again after udev has settled', async () => {
    const guest = new StubGuest(GPU1_UNBOUND, BOUND);
    await requireBound(guest, FUNCTIONS);
    assert.deepEqual([guest.looks, guest.settled], [2, 1]);
  });

  it('are waited for while a module is loading', async () => {
    const guest = new StubGuest(GPU1_UNBOUND, `${GPU1_UNBOUND}coming amdgpu\n`, BOUND);
    await requireBound(guest, FUNCTIONS);
    assert.equal(guest.looks, 3);
  });

  it('are named with their driver and the kernel’s lines when one is not bound, and with what to do', async () => {
    await assert.rejects(requireBound(new StubGuest(`${GPU1_UNBOUND}live amdgpu\n`), FUNCTIONS), (error) => {
      assert.ok(error instanceof DriverNotBoundError && error instanceof GuestError);
      assert.match(error.message, /^amdgpu did not take gpu1 \(0000:02:00\.0, 1002:7af0\)\.\n.*Fatal error.*\n.*-12\n/);
      assert.match(error.message, /--allow-unbound/);
      assert.doesNotMatch(error.message, /0000:01:00\.0/);
      return true;
    });
  });

  it('may be unbound where there is no driver, or it is kept from loading', async () => {
    await requireBound(new StubGuest(BOUND.replace('bound 0000:03', 'unbound 0000:03')), FUNCTIONS);
    await requireBound(new StubGuest(`${GPU1_UNBOUND}blocked lpc_ich amdgpu\n`), FUNCTIONS);
  });

  it('must be bound when one of several drivers may load', async () => {
    const shown = `${BOUND.replace('bound 0000:03:00.0 1da3:1000', 'unbound 0000:03:00.0 1da3:1000 one-a two')}blocked two\n`;
    await assert.rejects(requireBound(new StubGuest(shown), FUNCTIONS), (error) => {
      assert.match((error as Error).message, /^one-a did not take habana0 .*\nThe kernel says nothing about it\.\n/);
      return true;
    });
  });

  it('must be there at all', async () => {
    const shown = BOUND.replace('bound 0000:02:00.0 1002:7af0\n', '');
    await assert.rejects(requireBound(new StubGuest(shown), FUNCTIONS), (error) => {
      assert.ok(error instanceof GuestError);
      assert.match(error.message, /does not see gpu1 \(1002:7af0\)/);
      return true;
    });
  });

  it('are kept from their modules whichever way these are written', () => {
    const { functions } = parseLook('unbound 0000:01:00.0 1:2 snd-x snd_y z\nblocked snd_x\nblocked snd-y\n');
    assert.deepEqual(functions[0]?.modules, ['z']);
  });
});
