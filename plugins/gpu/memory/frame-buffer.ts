import type { FunctionPort, MemoryRegion, PrivateLink } from 'ghostbus';

/**
 * A hive: GPUs that reach each other's VRAM over private links (XGMI). The hive's physical address space has a segment
 * for each node, as large as a node's VRAM, in the order of `nodes`.
 */
export interface Hive {
  /** Function names, one for each node. */
  readonly nodes: readonly string[];
  /** Which of them this GPU is. */
  readonly node: number;
}

/** A piece of VRAM: of this GPU, or of another node of its hive. */
interface VramPlace {
  /** Undefined: this GPU's own. */
  readonly node: number | undefined;
  readonly offset: number;
  /** Bytes from there to the end of that VRAM. */
  readonly available: number;
}

/**
 * What a physical address without the SYSTEM bit means (vram_base_offset in gmc_v9_0.c gmc_v9_0_vram_gtt_location): an
 * offset in this GPU's VRAM, or in a hive the node's number times the segment's size plus an offset there.
 */
export class FrameBuffer {
  readonly vram: MemoryRegion;
  readonly hive: Hive | undefined;
  readonly #port: FunctionPort;
  readonly #links = new Map<number, PrivateLink>();

  constructor(port: FunctionPort, vram: MemoryRegion, hive?: Hive) {
    this.#port = port;
    this.vram = vram;
    this.hive = hive;
  }

  /** Of all nodes together. */
  get sizeBytes(): number {
    return this.vram.sizeBytes * (this.hive?.nodes.length ?? 1);
  }

  /** Where a physical address lies; undefined beyond the last segment. */
  locate(address: number): VramPlace | undefined {
    const segmentBytes = this.vram.sizeBytes;
    const segment = Math.floor(address / segmentBytes);
    const offset = address - segment * segmentBytes;
    if (segment < 0 || address >= this.sizeBytes) return undefined;
    const node = segment === (this.hive?.node ?? 0) ? undefined : segment;
    return { node, offset, available: segmentBytes - offset };
  }

  /** The memory of a place; {@link count} what is done to it. */
  memoryOf(node: number | undefined): MemoryRegion {
    return node === undefined ? this.vram : this.#link(node).memory;
  }

  /** What goes to another node is counted on the link to it. */
  count(node: number | undefined, direction: 'read' | 'write', lengthBytes: number): void {
    if (node !== undefined) this.#link(node).count(direction, lengthBytes);
  }

  #link(node: number): PrivateLink {
    const name = this.hive?.nodes[node] ?? '';
    const link = this.#links.get(node) ?? this.#port.link(name);
    if (link === undefined) throw new Error(`node ${node} of the hive, ${name}, is not there`);
    this.#links.set(node, link);
    return link;
  }
}
