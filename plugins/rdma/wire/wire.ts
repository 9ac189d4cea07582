/** One adapter's end of the cable: finds who is meant, counts and loses what travels, and shows it to recorders. */
import type { FunctionPort } from 'ghostbus';
import type { WorkUnits } from 'ghostbus/kit';
import { destinationMac } from '../ethernet/frame.js';
import { ads, qpc } from '../layouts/contexts.js';
import { bytesOf } from '../layouts/layout.js';
import { BROADCAST_MAC, isGroupMac } from '../port/addresses.js';
import type { Counters } from '../port/counters.js';
import type { Link } from '../port/profile.js';
import type { Vport } from '../port/vport.js';
import { SYNDROME } from '../queues/completion-entry.js';
import { TURN_UNITS } from '../queues/turns.js';
import type { AddressVector } from '../queues/work-queue-entry.js';
import type { Cable } from '../transport/requester.js';
import type { Responder, Responders } from '../transport/responder.js';
import {
  acknowledgeTimeoutMs,
  type MessageRecorder,
  packetsOf,
  RequestFailed,
  type Sending,
  type WireOperation,
} from '../transport/sending.js';
import { sleep, type Tap, type Work } from '../transport/transfer.js';
import type { Fate, WireFaults } from './faults.js';
import type { FrameRecorder } from './recorder.js';
import type { Station, Switch } from './switch.js';

/** What an end of the cable needs of its adapter. */
export interface WireHost {
  readonly port: Pick<FunctionPort, 'clock'>;
  readonly profile: { readonly link: Link };
  readonly vport: Pick<Vport, 'isUp' | 'lid' | 'mac' | 'hasGid' | 'acceptsMac'>;
  readonly counters: Pick<Counters, 'add' | 'countTraffic'>;
  readonly queuePairs: Responders;
  readonly ethernet: { receive(frame: Uint8Array): void };
}

/** What outlives a reset of the adapter. */
export interface WirePlace {
  readonly switch: Switch;
  readonly faults: WireFaults;
  readonly recorder: (FrameRecorder & MessageRecorder) | undefined;
}

/** The fate of one packet: 10,000 are a turn. */
const DRAW_UNITS: WorkUnits = TURN_UNITS / 10_000;
const HELD_BACK_MS = 1;
/** First byte of a multicast GID (RFC 4291 §2.7). */
const MULTICAST_GID = 0xff;

export class Wire implements Cable, Station {
  readonly link: Link;
  readonly recorder: FrameRecorder | undefined;
  readonly #host: WireHost;
  readonly #place: WirePlace;
  #heldBack: Uint8Array | undefined;

  constructor(host: WireHost, place: WirePlace) {
    this.#host = host;
    this.#place = place;
    this.link = host.profile.link;
    this.recorder = place.recorder;
    place.switch.plug(this);
  }

  get vport(): WireHost['vport'] {
    return this.#host.vport;
  }

  get responders(): Responders {
    return this.#host.queuePairs;
  }

  disconnect(): void {
    this.#place.switch.unplug(this);
  }

  findResponder({ qp }: Sending): Responder | undefined {
    const peer = this.resolvePath(qp.path)?.responders.find(qpc.get(qp.context, 'remote_qpn'));
    return peer?.isConnectedTo(qp) === true ? peer : undefined;
  }

  /** Who is at the other end of a connection's path. */
  resolvePath(path: DataView): Station | undefined {
    return this.#place.switch.resolve(this, {
      lid: ads.get(path, 'rlid'),
      mac: ads.get(path, 'rmac_47_32') * 2 ** 32 + ads.get(path, 'rmac_31_0'),
      gid: bytesOf(ads.part(path, 'rgid_rip')),
      hasGrh: ads.get(path, 'grh') === 1,
    });
  }

  respondersAt(vector: AddressVector): Responders | undefined {
    return this.#place.switch.resolve(this, vector)?.responders;
  }

  multicastMembers(vector: AddressVector): Responder[] {
    if (!this.vport.isUp) return [];
    return this.#place.switch.neighbours(this).flatMap(({ responders }) => responders.members(vector.gid));
  }

  *deliver(
    sending: Sending,
    peer: Responder,
    operation: WireOperation,
    lengthBytes: number,
    vector?: AddressVector,
  ): Work<boolean> {
    const { qp } = sending;
    const packets = packetsOf(qp, lengthBytes);
    const kind = vector?.gid[0] === MULTICAST_GID ? 'multicast' : 'unicast';
    // The bytes of a read travel the other way.
    const [from, to] = operation === 'read' ? [peer, this.#host.counters] : [this.#host.counters, peer];
    from.countTraffic(`transmitted_ib_${kind}`, packets, lengthBytes);
    if (this.#place.faults.areActive) {
      const arrived = qp.isReliable ? yield* this.#insist(sending, peer, packets) : yield* this.#hope(sending, packets);
      if (!arrived) return false;
    }
    to.countTraffic(`received_ib_${kind}`, packets, lengthBytes);
    peer.countRequest(operation);
    return true;
  }

  tap(sending: Sending, peer: Responder, operation: WireOperation, lengthBytes: number): Tap | undefined {
    return this.#join(peer, (recorder) => recorder.connected(sending, peer.number, operation, lengthBytes));
  }

  datagramTap(sending: Sending, peer: Responder, vector: AddressVector, lengthBytes: number): Tap | undefined {
    return this.#join(peer, (recorder) => recorder.datagram(sending, vector, lengthBytes));
  }

  recordAtomic(sending: Sending, peer: Responder, old: bigint): void {
    for (const recorder of this.#recorders(peer)) recorder.atomic(sending, peer.number, old);
  }

  /** Those of both ends, which may be one. */
  #recorders(peer: Responder): MessageRecorder[] {
    const recorders = new Set([this.#place.recorder, peer.recorder]);
    return [...recorders].filter((recorder) => recorder !== undefined);
  }

  /** One tap for the recorders of both ends. */
  #join(peer: Responder, start: (recorder: MessageRecorder) => Tap): Tap | undefined {
    const taps = this.#recorders(peer).map(start);
    if (taps.length === 0) return undefined;
    return (bytes) => {
      for (const tap of taps) tap(bytes);
    };
  }

  /**
   * Go-back-N, as reliable connections do it: a gap is answered by a NAK and everything from there is sent again; the
   * loss of a message's last packet, or of its acknowledgement, is only noticed by the timer.
   */
  *#insist(sending: Sending, peer: Responder, packets: number): Work<boolean> {
    const { qp, waiter } = sending;
    const retries = qpc.get(qp.context, 'retry_count');
    for (let sent = 0, failures = 0; sent <= packets; ) {
      const isAcknowledgement = sent === packets;
      const fate = this.#place.faults.draw();
      if (fate === 'arrives' || fate === 'duplicated') {
        if (fate === 'duplicated') peer.count('duplicate_request');
        sent++;
        failures = 0;
      } else {
        if (++failures > retries) throw new RequestFailed(SYNDROME.TRANSPORT_RETRIES, 'too many packets were lost');
        yield* this.#recover(sending, peer, fate, isAcknowledgement, sent === packets - 1);
      }
      waiter.budget.charge(DRAW_UNITS);
      if (waiter.budget.isSpent) yield 'slice';
    }
    return true;
  }

  *#recover({ qp, waiter }: Sending, peer: Responder, fate: Fate, isAcknowledgement: boolean, isLast: boolean): Work {
    const { counters } = this.#host;
    // An acknowledgement that is overtaken by another says the same.
    if (isAcknowledgement && fate === 'reordered') return;
    if (isAcknowledgement || (isLast && fate !== 'reordered')) {
      counters.add(qp, 'local_ack_timeout_err');
      yield* sleep(waiter, acknowledgeTimeoutMs(qp));
      if (isAcknowledgement) peer.count('duplicate_request');
      return;
    }
    peer.count('out_of_sequence');
    counters.add(qp, 'packet_seq_err');
  }

  /** An unreliable message arrives when each of its packets does, in order. */
  *#hope({ waiter }: Sending, packets: number): Work<boolean> {
    let arrived = true;
    for (let sent = 0; sent < packets; sent++) {
      const fate = this.#place.faults.draw();
      if (fate === 'lost' || fate === 'corrupted' || (fate === 'reordered' && packets > 1)) arrived = false;
      waiter.budget.charge(DRAW_UNITS);
      if (waiter.budget.isSpent) yield 'slice';
    }
    return arrived;
  }

  /** A frame of this adapter goes to whoever takes its destination address; never back to itself. */
  sendFrame(frame: Uint8Array): void {
    if (!this.vport.isUp) return;
    this.#host.counters.countTraffic(`transmitted_eth_${frameKind(destinationMac(frame))}`, 1, frame.length);
    this.recorder?.frame(frame, this.#host.port.clock);
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

  /** A frame that another adapter sent here. */
  receiveFrame(frame: Uint8Array): void {
    this.#host.counters.countTraffic(`received_eth_${frameKind(destinationMac(frame))}`, 1, frame.length);
    this.#host.ethernet.receive(frame);
  }

  /** The next frame overtakes this one; without a next one it goes on its own. */
  #holdBack(frame: Uint8Array): void {
    this.#heldBack = frame;
    this.#host.port.clock.after(HELD_BACK_MS, () => this.#releaseHeldBack());
  }

  #releaseHeldBack(): void {
    const frame = this.#heldBack;
    this.#heldBack = undefined;
    if (frame !== undefined) this.#spread(frame);
  }

  #spread(frame: Uint8Array): void {
    const mac = destinationMac(frame);
    for (const other of this.#place.switch.neighbours(this)) {
      if (other === this || other.link !== 'roce' || !other.vport.acceptsMac(mac)) continue;
      if (other.recorder !== this.recorder) other.recorder?.frame(frame, this.#host.port.clock);
      other.receiveFrame(frame);
    }
  }
}

function frameKind(mac: number): 'unicast' | 'multicast' | 'broadcast' {
  if (mac === BROADCAST_MAC) return 'broadcast';
  return isGroupMac(mac) ? 'multicast' : 'unicast';
}
