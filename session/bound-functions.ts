/** Whether the drivers in a guest have taken the functions that they are for. */
import { setTimeout as delay } from 'node:timers/promises';
import type { ServedFunction } from '../emulator/emulator.js';
import { type Guest, GuestError } from '../qemu/index.js';
import { hex4 } from './guest-addresses.js';

/** A driver of the guest did not take a function that it is for. */
export class DriverNotBoundError extends GuestError {}

type Watched = Pick<Guest, 'capture' | 'dmesg' | 'settle'>;
type Known = Pick<ServedFunction, 'name' | 'identity'>;

/** How much of what the kernel says about a function is told. */
const TOLD_LINES = 20;
const LOOK_INTERVAL_MS = 500;
const LOADING_LIMIT_MS = 300_000;

/**
 * Looks at all functions at once, as each program takes its time to start on an emulated processor: the functions with
 * the ids given, in the order of their addresses, and for those without a driver the modules that are for them. What is
 * kept from loading follows (modprobe's -b does not look at it when it only resolves), and what is still loading.
 */
const LOOK = `
cd /sys/bus/pci/devices
for address in *; do
  read -r vendor < $address/vendor
  read -r device < $address/device
  ids=\${vendor#0x}:\${device#0x}
  case " $* " in
    *" $ids "*) ;;
    *) continue ;;
  esac
  if [ -e $address/driver ]; then
    echo bound $address $ids
  else
    read -r modalias < $address/modalias
    modules=$(modprobe -R "$modalias" 2> /dev/null)
    echo unbound $address $ids $modules
    unbound="$unbound $modules"
  fi
done
[ -n "$unbound" ] || exit 0
modprobe -c | sed -n 's/^blacklist /blocked /p'
for word in $(cat /proc/cmdline); do
  case $word in
    module_blacklist=*) echo blocked $(echo \${word#*=} | tr , ' ') ;;
  esac
done
for module in $unbound; do
  [ ! -e /sys/module/$module/initstate ] || echo $(cat /sys/module/$module/initstate) $module
done
`;

/** One function as the guest sees it. */
interface Seen {
  readonly address: string;
  readonly ids: string;
  readonly isBound: boolean;
  /** Modules that are for it, of those that the kernel may load. */
  readonly modules: readonly string[];
}

interface Look {
  readonly functions: readonly Seen[];
  readonly loading: ReadonlySet<string>;
}

/** What {@link LOOK} prints. */
export function parseLook(text: string): Look {
  const rows = text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(' '));
  const named = (kind: string) =>
    new Set(rows.filter(([first]) => first === kind).flatMap(([, ...names]) => names.map(moduleName)));
  const blocked = named('blocked');
  const functions = rows
    .filter(([kind]) => kind === 'bound' || kind === 'unbound')
    .map(([kind, address = '', ids = '', ...modules]) => ({
      address,
      ids,
      isBound: kind === 'bound',
      modules: modules.filter((name) => !blocked.has(moduleName(name))),
    }));
  return { functions, loading: named('coming') };
}

/** A module's name has underscores in the kernel (scripts/Makefile.lib, `name-fix`). */
function moduleName(name: string): string {
  return name.replaceAll('-', '_');
}

/**
 * Returns when every function that this guest has a driver for is bound: where modprobe finds a module for it that is
 * not kept from loading.
 * @throws DriverNotBoundError with the kernel's lines about the function
 * @throws GuestError when the guest does not see a function at all
 */
export async function requireBound(guest: Watched, functions: readonly Known[]): Promise<void> {
  if (functions.length === 0) return;
  let look = await lookAt(guest, functions);
  if (missingDrivers(look).length > 0) {
    // Whoever was about to load one may have been late: udev has told all it knew when it was asked first.
    await guest.settle();
    look = await lookAt(guest, functions);
    const deadline = performance.now() + LOADING_LIMIT_MS;
    while (isLoading(look) && performance.now() < deadline) {
      await delay(LOOK_INTERVAL_MS);
      look = await lookAt(guest, functions);
    }
  }
  const named = nameFunctions(look, functions);
  const missing = named.filter(([, seen]) => isMissing(seen));
  if (missing.length > 0) throw new DriverNotBoundError(complaint(missing, await guest.dmesg()), '');
}

async function lookAt(guest: Watched, functions: readonly Known[]): Promise<Look> {
  const ids = [...new Set(functions.map(idsOf))];
  const { stdout } = await guest.capture(['sh', '-c', LOOK, 'sh', ...ids]);
  return parseLook(stdout.toString());
}

function idsOf({ identity }: Known): string {
  return `${hex4(identity.vendorId)}:${hex4(identity.deviceId)}`;
}

function isMissing({ isBound, modules }: Seen): boolean {
  return !isBound && modules.length > 0;
}

function missingDrivers({ functions }: Look): Seen[] {
  return functions.filter(isMissing);
}

function isLoading(look: Look): boolean {
  return missingDrivers(look).some(({ modules }) => modules.some((name) => look.loading.has(moduleName(name))));
}

/** Functions with the same ids are told apart by their order, as by guestAddresses. */
function nameFunctions(look: Look, functions: readonly Known[]): [Known, Seen][] {
  const left = [...look.functions];
  return functions.map((known) => {
    const index = left.findIndex(({ ids }) => ids === idsOf(known));
    const [seen] = index < 0 ? [] : left.splice(index, 1);
    if (seen === undefined) throw new GuestError(`The guest does not see ${known.name} (${idsOf(known)}).`, '');
    return [known, seen];
  });
}

function complaint(missing: readonly (readonly [Known, Seen])[], log: string): string {
  const lines = log.split('\n');
  const texts = missing.map(([{ name }, { address, ids, modules }]) => {
    const said = lines.filter((line) => line.includes(address)).slice(-TOLD_LINES);
    const words = said.length === 0 ? '\nThe kernel says nothing about it.' : `\n${said.join('\n')}`;
    return `${modules.join(' or ')} did not take ${name} (${address}, ${ids}).${words}`;
  });
  return `${texts.join('\n')}\nTo go on all the same: --allow-unbound, or expectBound: false in a program.`;
}
