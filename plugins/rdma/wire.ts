/** The switch between the adapters of one emulator: who answers to an address, what is lost on the way, what is recorded. */
import type { Adapter } from './adapter.js';
import { destinationMac } from './frame.js';
import { bytesOf } from './layout.js';
import { ads } from './layouts/contexts.js';
import type { QueuePair } from './queue-pair.js';
import type { Sending, WireOperation } from './requester.js';
import type { Tap, Work } from './transfer.js';
import type { AddressVector } from './work-queue-entry.js';

interface Address {
  readonly lid: number;
  readonly mac: number;
  readonly gid: Uint8Array;
  readonly hasGrh: boolean;
}

/**
 * One adapter's end of the switch. Adapters find each other among all of this process; those of another emulator (another bus
 * in a test) are told apart by asking the port for a sibling of that name.
 */
export class Wire {
  static readonly #adapters = new Set<Adapter>();
  readonly #adapter: Adapter;

  constructor(adapter: Adapter) {
    this.#adapter = adapter;
    Wire.#adapters.add(adapter);
  }

  disconnect(): void {
    Wire.#adapters.delete(this.#adapter);
  }

  /** All adapters on the switch with their port up; this one first. */
  get neighbours(): Adapter[] {
    const own = this.#adapter;
    const others = [...Wire.#adapters].filter((other) => other !== own && own.isNeighbour(other));
    return [own, ...others].filter((adapter) => adapter.vport.isUp);
  }

  /** Who is at the other end of a connection's path. */
  resolvePath(path: DataView): Adapter | undefined {
    return this.#resolve({
      lid: ads.get(path, 'rlid'),
      mac: ads.get(path, 'rmac_47_32') * 2 ** 32 + ads.get(path, 'rmac_31_0'),
      gid: bytesOf(ads.part(path, 'rgid_rip')),
      hasGrh: ads.get(path, 'grh') === 1,
    });
  }

  resolveVector(vector: AddressVector): Adapter | undefined {
    return this.#resolve(vector);
  }

  /** Members of a group on all adapters. */
  multicastMembers(vector: AddressVector): QueuePair[] {
    if (!this.#adapter.vport.isUp) return [];
    return this.neighbours.flatMap((adapter) => adapter.queuePairs.members(vector.gid));
  }

  /**
   * The packets of one message travel. False when an unreliable message is lost; a reliable one that cannot be brought over
   * throws RequestFailed.
   */
  // biome-ignore lint/correctness/useYield: losses will wait for timers
  *deliver(
    { qp }: Sending,
    peer: QueuePair,
    operation: WireOperation,
    lengthBytes: number,
    vector?: AddressVector,
  ): Work<boolean> {
    const packets = Math.max(1, Math.ceil(lengthBytes / qp.mtuBytes));
    const isGroup = vector?.gid[0] === 0xff;
    const [from, to] = operation === 'read' ? [peer.adapter, qp.adapter] : [qp.adapter, peer.adapter];
    from.counters.countTraffic(isGroup ? 'transmitted_ib_multicast' : 'transmitted_ib_unicast', packets, lengthBytes);
    to.counters.countTraffic(isGroup ? 'received_ib_multicast' : 'received_ib_unicast', packets, lengthBytes);
    return true;
  }

  tap(_sending: Sending, _peer: QueuePair, _operation: WireOperation, _lengthBytes: number): Tap | undefined {
    return undefined;
  }

  datagramTap(_sending: Sending, _peer: QueuePair, _vector: AddressVector, _lengthBytes: number): Tap | undefined {
    return undefined;
  }

  /** A frame of this adapter goes to whoever takes its destination address; never back to itself. */
  sendFrame(frame: Uint8Array): void {
    const mac = destinationMac(frame);
    const kind = frameKind(mac);
    if (!this.#adapter.vport.isUp) return;
    this.#adapter.counters.countTraffic(`transmitted_eth_${kind}`, 1, frame.length);
    for (const other of this.neighbours) {
      if (other === this.#adapter || other.profile.link !== 'roce' || !other.vport.acceptsMac(mac)) continue;
      other.counters.countTraffic(`received_eth_${kind}`, 1, frame.length);
      other.ethernet.receive(frame);
    }
  }

  /** InfiniBand: by GID when there is one, else by LID. Ethernet: the GID decides, the MAC address between equals. */
  #resolve(address: Address): Adapter | undefined {
    if (!this.#adapter.vport.isUp) return undefined;
    const candidates = this.neighbours.filter((adapter) => adapter.profile.link === this.#adapter.profile.link);
    if (this.#adapter.profile.link === 'ib' && !address.hasGrh) {
      return candidates.find((adapter) => adapter.vport.lid === address.lid);
    }
    const owners = candidates.filter((adapter) => adapter.vport.hasGid(address.gid));
    return owners.find((adapter) => adapter.vport.mac === address.mac) ?? owners[0];
  }
}

function frameKind(mac: number): 'unicast' | 'multicast' | 'broadcast' {
  if (mac === 2 ** 48 - 1) return 'broadcast';
  return Math.floor(mac / 2 ** 40) % 2 === 1 ? 'multicast' : 'unicast';
}
