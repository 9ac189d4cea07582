/** The switch between the adapters of one emulator: who answers to an address, what is lost on the way, what is recorded. */
import type { Adapter } from '../adapter.js';
import { destinationMac } from '../ethernet/frame.js';
import { ads, qpc } from '../layouts/contexts.js';
import { bytesOf } from '../layouts/layout.js';
import { type QueuePair, SYNDROME } from '../queues/queue-pair.js';
import type { AddressVector } from '../queues/work-queue-entry.js';
import {
  acknowledgeTimeoutMs,
  RequestFailed,
  type Sending,
  sleep,
  type WireOperation,
} from '../transport/requester.js';
import type { Tap, Work } from '../transport/transfer.js';
import type { Fate, WireFaults } from './faults.js';
import type { WireRecorder } from './recorder.js';

interface Address {
  readonly lid: number;
  readonly mac: number;
  readonly gid: Uint8Array;
  readonly hasGrh: boolean;
}

/** What outlives a reset of the adapter. */
export interface WirePlace {
  readonly faults: WireFaults;
  readonly recorder: WireRecorder | undefined;
}

/** Fates drawn before others have their turn. */
const DRAWS_PER_SLICE = 10_000;
const HELD_BACK_MS = 1;

/**
 * One adapter's end of the switch. Adapters find each other among all of this process; those of another emulator (another bus
 * in a test) are told apart by asking the port for a sibling of that name.
 */
export class Wire {
  static readonly #adapters = new Set<Adapter>();
  readonly #adapter: Adapter;
  readonly #place: WirePlace;
  #heldBack: Uint8Array | undefined;

  constructor(adapter: Adapter, place: WirePlace) {
    this.#adapter = adapter;
    this.#place = place;
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
  *deliver(
    sending: Sending,
    peer: QueuePair,
    operation: WireOperation,
    lengthBytes: number,
    vector?: AddressVector,
  ): Work<boolean> {
    const { qp } = sending;
    const packets = Math.max(1, Math.ceil(lengthBytes / qp.mtuBytes));
    const isGroup = vector?.gid[0] === 0xff;
    const [from, to] = operation === 'read' ? [peer.adapter, qp.adapter] : [qp.adapter, peer.adapter];
    from.counters.countTraffic(isGroup ? 'transmitted_ib_multicast' : 'transmitted_ib_unicast', packets, lengthBytes);
    if (this.#place.faults.areActive) {
      const arrived = qp.isReliable ? yield* this.#insist(sending, peer, packets) : yield* this.#hope(packets);
      if (!arrived) return false;
    }
    to.counters.countTraffic(isGroup ? 'received_ib_multicast' : 'received_ib_unicast', packets, lengthBytes);
    peer.adapter.counters.countRequest(peer, operation);
    return true;
  }

  /** Sees the bytes of a connection's message, if anybody records them. */
  tap(sending: Sending, peer: QueuePair, operation: WireOperation, lengthBytes: number): Tap | undefined {
    return this.#join(peer, (recorder) => recorder.connected(sending, peer, operation, lengthBytes));
  }

  datagramTap(sending: Sending, peer: QueuePair, vector: AddressVector, lengthBytes: number): Tap | undefined {
    return this.#join(peer, (recorder) => recorder.datagram(sending, vector, vector.queuePair, lengthBytes));
  }

  /** An atomic operation that was carried out, if anybody records it. */
  recordAtomic(sending: Sending, peer: QueuePair, old: bigint): void {
    for (const recorder of this.#recorders(peer)) recorder.atomic(sending, peer, old);
  }

  /** Those of both ends, which may be one. */
  #recorders(peer: QueuePair): WireRecorder[] {
    const recorders = new Set([this.#place.recorder, peer.adapter.wire.#place.recorder]);
    return [...recorders].filter((recorder) => recorder !== undefined);
  }

  /** One tap for the recorders of both ends. */
  #join(peer: QueuePair, start: (recorder: WireRecorder) => Tap): Tap | undefined {
    const taps = this.#recorders(peer).map(start);
    if (taps.length === 0) return undefined;
    return (bytes) => {
      for (const tap of taps) tap(bytes);
    };
  }

  /**
   * Go-back-N, as reliable connections do it: a gap is answered by a NAK and everything from there is sent again; the loss of a
   * message's last packet, or of its acknowledgement, is only noticed by the timer.
   */
  *#insist(sending: Sending, peer: QueuePair, packets: number): Work<boolean> {
    const { qp } = sending;
    const retries = qpc.get(qp.context, 'retry_count');
    for (let sent = 0, failures = 0; sent <= packets; ) {
      const isAcknowledgement = sent === packets;
      const fate = this.#place.faults.draw();
      if (fate === 'arrives' || fate === 'duplicated') {
        if (fate === 'duplicated') peer.adapter.counters.add(peer, 'duplicate_request');
        sent++;
        failures = 0;
      } else {
        if (++failures > retries) throw new RequestFailed(SYNDROME.TRANSPORT_RETRIES, 'too many packets were lost');
        yield* this.#recover(sending, peer, fate, isAcknowledgement, sent === packets - 1);
      }
      if (sent % DRAWS_PER_SLICE === DRAWS_PER_SLICE - 1) yield 'slice';
    }
    return true;
  }

  *#recover(sending: Sending, peer: QueuePair, fate: Fate, isAcknowledgement: boolean, isLast: boolean): Work {
    const { qp } = sending;
    // An acknowledgement that is overtaken by another says the same.
    if (isAcknowledgement && fate === 'reordered') return;
    if (isAcknowledgement || (isLast && fate !== 'reordered')) {
      qp.adapter.counters.add(qp, 'local_ack_timeout_err');
      yield* sleep(sending, acknowledgeTimeoutMs(qp));
      if (isAcknowledgement) peer.adapter.counters.add(peer, 'duplicate_request');
      return;
    }
    peer.adapter.counters.add(peer, 'out_of_sequence');
    qp.adapter.counters.add(qp, 'packet_seq_err');
  }

  /** An unreliable message arrives when each of its packets does, in order. */
  *#hope(packets: number): Work<boolean> {
    let arrived = true;
    for (let sent = 0; sent < packets; sent++) {
      const fate = this.#place.faults.draw();
      if (fate === 'lost' || fate === 'corrupted' || (fate === 'reordered' && packets > 1)) arrived = false;
      if (sent % DRAWS_PER_SLICE === DRAWS_PER_SLICE - 1) yield 'slice';
    }
    return arrived;
  }

  /** A frame of this adapter goes to whoever takes its destination address; never back to itself. */
  sendFrame(frame: Uint8Array): void {
    if (!this.#adapter.vport.isUp) return;
    this.#adapter.counters.countTraffic(`transmitted_eth_${frameKind(destinationMac(frame))}`, 1, frame.length);
    this.#place.recorder?.frame(this.#adapter, frame);
    const fate = this.#place.faults.areActive ? this.#place.faults.draw() : 'arrives';
    // Whoever receives a damaged frame drops it for its check sequence.
    if (fate === 'lost' || fate === 'corrupted') return;
    if (fate === 'reordered' && this.#heldBack === undefined) {
      this.#holdBack(frame);
      return;
    }
    this.#spread(frame);
    if (fate === 'duplicated') this.#spread(frame);
    this.#releaseHeldBack();
  }

  /** The next frame overtakes this one; without a next one it goes on its own. */
  #holdBack(frame: Uint8Array): void {
    this.#heldBack = frame;
    this.#adapter.port.clock.after(HELD_BACK_MS, () => this.#releaseHeldBack());
  }

  #releaseHeldBack(): void {
    const frame = this.#heldBack;
    this.#heldBack = undefined;
    if (frame !== undefined) this.#spread(frame);
  }

  #spread(frame: Uint8Array): void {
    const mac = destinationMac(frame);
    for (const other of this.neighbours) {
      if (other === this.#adapter || other.profile.link !== 'roce' || !other.vport.acceptsMac(mac)) continue;
      other.counters.countTraffic(`received_eth_${frameKind(mac)}`, 1, frame.length);
      const recorder = other.wire.#place.recorder;
      if (recorder !== this.#place.recorder) recorder?.frame(other, frame);
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
