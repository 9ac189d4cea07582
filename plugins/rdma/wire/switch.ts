/** The switch between the adapters of one emulator: who is plugged in, and who answers to an address. */
import type { Link } from '../port/profile.js';
import type { Vport } from '../port/vport.js';
import type { Responders } from '../transport/responder.js';
import type { FrameRecorder } from './recorder.js';

/** One adapter, as the others see it. */
export interface Station {
  readonly link: Link;
  readonly vport: Pick<Vport, 'isUp' | 'lid' | 'mac' | 'hasGid' | 'acceptsMac'>;
  readonly responders: Responders;
  /** Who records what arrives here. */
  readonly recorder: FrameRecorder | undefined;
  receiveFrame(frame: Uint8Array): void;
}

/** Where a message is to go, by whichever of these the network looks at. */
export interface Address {
  readonly lid: number;
  readonly mac: number;
  readonly gid: Uint8Array;
  readonly hasGrh: boolean;
}

export class Switch {
  readonly #stations = new Set<Station>();

  plug(station: Station): void {
    this.#stations.add(station);
  }

  unplug(station: Station): void {
    this.#stations.delete(station);
  }

  /** Everybody with their port up; `own` first. */
  neighbours(own: Station): Station[] {
    const others = [...this.#stations].filter((station) => station !== own);
    return [own, ...others].filter(({ vport }) => vport.isUp);
  }

  /** InfiniBand: by GID when there is one, else by LID. Ethernet: the GID decides, the MAC address between equals. */
  resolve(own: Station, address: Address): Station | undefined {
    if (!own.vport.isUp) return undefined;
    const candidates = this.neighbours(own).filter(({ link }) => link === own.link);
    if (own.link === 'ib' && !address.hasGrh) return candidates.find(({ vport }) => vport.lid === address.lid);
    const owners = candidates.filter(({ vport }) => vport.hasGid(address.gid));
    return owners.find(({ vport }) => vport.mac === address.mac) ?? owners[0];
  }
}
