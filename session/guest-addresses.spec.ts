import assert from 'node:assert/strict';
import type { Emulator } from '../emulator/emulator.js';
import { guestAddresses } from './guest-addresses.js';

const LSPCI = `0000:00:00.0 0600: 8086:29c0
0000:01:00.0 1200: 1002:7af0
0000:02:00.0 1200: 1002:7af0
0000:03:00.0 0200: 15b3:1021
`;

const guest = {
  capture: async () => ({ exitCode: 0, signal: undefined, stdout: Buffer.from(LSPCI), stderr: Buffer.alloc(0) }),
};

function functionsNamed(...functions: readonly (readonly [name: string, vendorId: number, deviceId: number])[]) {
  const served = functions.map(([name, vendorId, deviceId]) => ({ name, identity: { vendorId, deviceId } }));
  return { functions: served as unknown as Emulator['functions'] };
}

describe('addresses in the guest', () => {
  it('are told apart by ids, and for equal ids by order', async () => {
    const addresses = await guestAddresses(
      guest,
      functionsNamed(['gpu0', 0x1002, 0x7af0], ['gpu1', 0x1002, 0x7af0], ['rdma0', 0x15b3, 0x1021]),
    );
    assert.deepEqual(
      [...addresses],
      [
        ['gpu0', '0000:01:00.0'],
        ['gpu1', '0000:02:00.0'],
        ['rdma0', '0000:03:00.0'],
      ],
    );
  });

  it('name the function that the guest does not see', async () => {
    await assert.rejects(guestAddresses(guest, functionsNamed(['habana0', 0x1da3, 0x1000])), /1da3:1000, habana0/);
  });
});
