/** Makes the drivers of the matrix ready to work in a guest that has booted. */
import type { GuestPlaces, MatrixDriver } from '../emulator/plugin/index.js';
import type { Guest } from '../qemu/index.js';

/** Loading goes on in the background of other loading; so nothing is waited for before all has begun. */
const HELPERS = `
until_true() {
  for try in $(seq 1200); do if eval "$1"; then return 0; fi; sleep 0.1; done
  echo "never became true: $1" >&2
  return 1
}
note() { echo "note $1 $2"; }
`;

/** The shell script that sets these drivers up. */
export function setUpScript(drivers: readonly MatrixDriver[], places: GuestPlaces): string {
  const parts = [
    ...drivers.flatMap(({ load }) => load ?? []),
    ...drivers.flatMap((driver) => driver.prepare?.(places) ?? []),
  ];
  return ['set -e', HELPERS, ...parts, 'udevadm settle'].join('\n');
}

/** Sets the drivers up. @throws Error with what the guest said */
export async function setUp(
  guest: Pick<Guest, 'capture'>,
  drivers: readonly MatrixDriver[],
  addresses: ReadonlyMap<string, string>,
): Promise<GuestPlaces> {
  const notes = new Map<string, string>();
  const places: GuestPlaces = {
    address: (name) => found(addresses.get(name), `the machine has no function ${name}`),
    noted: (key) => found(notes.get(key), `the set-up of the guest noted nothing about ${key}`),
  };
  const { exitCode, stdout, stderr } = await guest.capture(['sh', '-uc', setUpScript(drivers, places)]);
  if (exitCode !== 0) throw new Error(`the guest could not be set up: ${stderr.toString().trim()}`);
  for (const [, key, value] of stdout.toString().matchAll(/^note (\S+) (.*)$/gm)) notes.set(key!, value!);
  return places;
}

function found(value: string | undefined, complaint: string): string {
  if (value === undefined) throw new Error(complaint);
  return value;
}
