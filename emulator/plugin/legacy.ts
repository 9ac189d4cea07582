/**
 * Devices of the contract before {@link PcieFunction.powerOn}: one object that sets itself back at a reset. This file goes when
 * the last of them makes its model anew.
 */
import type { Dma } from '../memory/dma.js';
import type { MemoryRegion } from '../memory/region.js';
import type { BarShape } from '../pci/bar.js';
import type { BarParts, BarRegisters } from '../pci/bar-parts.js';
import type { Capability } from '../pci/capability.js';
import type { ResetKind } from '../pci/config-space.js';
import type { Identity } from '../pci/identity.js';
import type { FunctionModel, FunctionPort, PcieFunction } from './function.js';

/** A BAR with the parts that it keeps over resets. */
export interface LegacyBar extends BarShape {
  readonly parts: BarParts;
}

export interface LegacyFunction {
  readonly nameSuffix?: string;
  readonly identity: Identity;
  readonly bars: readonly LegacyBar[];
  readonly capabilities: readonly Capability[];
  readonly rom?: Uint8Array;
  readonly configRegisters?: readonly BarRegisters[];
  readonly linkMemory?: MemoryRegion;
  attach(port: FunctionPort): void;
  /** Return to the power-on state. */
  reset(kind: ResetKind): void;
  control?(command: string, args: Readonly<Record<string, unknown>>): unknown;
  inspect?(): unknown;
  detach?(): void;
}

/** `created` itself, or an adapter around a device of the old contract. */
export function asPcieFunction(created: PcieFunction | LegacyFunction): PcieFunction {
  return 'powerOn' in created ? created : legacyFunction(created);
}

/** What {@link FunctionPort.sibling} shows of a function: devices of the old contract look for their own object. */
export function unwrapLegacy(card: PcieFunction): PcieFunction {
  return (card as Partial<LegacyCard>).legacy === undefined ? card : ((card as LegacyCard).legacy as never);
}

interface LegacyCard extends PcieFunction {
  readonly legacy: LegacyFunction;
}

/** Keeps `legacy` over resets and connects it to each model's port in turn. */
export function legacyFunction(legacy: LegacyFunction): PcieFunction {
  let current: FunctionPort;
  const port = enduringPort(() => current);
  const bars = Object.fromEntries(legacy.bars.map(({ index, parts }) => [index, parts]));
  const model: FunctionModel = {
    bars,
    ...(legacy.configRegisters && { configRegisters: legacy.configRegisters }),
    ...(legacy.control && { control: (command, args) => legacy.control?.(command, args) }),
    ...(legacy.inspect && { inspect: () => legacy.inspect?.() }),
  };
  const card: LegacyCard = {
    legacy,
    ...(legacy.nameSuffix !== undefined && { nameSuffix: legacy.nameSuffix }),
    identity: legacy.identity,
    bars: legacy.bars,
    capabilities: legacy.capabilities,
    ...(legacy.rom && { rom: legacy.rom }),
    get linkMemory() {
      return legacy.linkMemory as MemoryRegion;
    },
    powerOn(newPort, cause) {
      current = newPort;
      if (cause === 'attach') legacy.attach(port);
      else if (cause !== 'self') legacy.reset(cause);
      return model;
    },
    detach: () => legacy.detach?.(),
  };
  return card;
}

/** A port whose every call goes to the port of the model of the time. */
function enduringPort(current: () => FunctionPort): FunctionPort {
  const dma = new Proxy({} as Dma, {
    get: (_target, name: keyof Dma) => (current().dma[name] as () => unknown).bind(current().dma),
  });
  return {
    get name() {
      return current().name;
    },
    get log() {
      return current().log;
    },
    get busMasterEnabled() {
      return current().busMasterEnabled;
    },
    dma,
    clock: {
      nowNs: () => current().clock.nowNs(),
      after: (delayMs, callback) => current().clock.after(delayMs, callback),
    },
    interrupt: (vector) => current().interrupt(vector),
    post: (work) => current().post(work),
    sibling: (name) => current().sibling(name),
    restart: () => current().restart(),
    vanish: () => current().vanish(),
    link: (name) => current().link(name),
  };
}
