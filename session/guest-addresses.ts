import type { Emulator } from '../emulator/emulator.js';
import type { Guest } from '../qemu/index.js';

/**
 * The guest's address (`0000:01:00.0`) of each served function, by name; they are told apart by
 * vendor, device and order.
 * @throws Error when the guest does not see one of them.
 */
export async function guestAddresses(
  guest: Pick<Guest, 'capture'>,
  { functions }: Pick<Emulator, 'functions'>,
): Promise<Map<string, string>> {
  const { stdout } = await guest.capture(['lspci', '-Dn']);
  const listed = stdout
    .toString()
    .trim()
    .split('\n')
    .map((line) => ({ address: line.split(' ')[0]!, ids: line.split(' ')[2]! }));
  const addresses = new Map<string, string>();
  for (const { name, identity } of functions) {
    const ids = `${hex4(identity.vendorId)}:${hex4(identity.deviceId)}`;
    const found = listed.find((entry) => entry.ids === ids && ![...addresses.values()].includes(entry.address));
    if (found === undefined) throw new Error(`the guest has no (further) function ${ids}, ${name}`);
    addresses.set(name, found.address);
  }
  return addresses;
}

/** As lspci prints vendors and devices. */
export function hex4(value: number): string {
  return value.toString(16).padStart(4, '0');
}
