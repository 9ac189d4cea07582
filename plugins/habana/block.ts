import type { RegisterDeclaration } from '../../emulator/plugin.js';

/** One block of registers, as the data book places it. */
export interface BlockLayout {
  /** Name without `mm`, as in the kernel's headers. */
  readonly name: string;
  /** Offset from CFG_BASE; a multiple of 4 KiB. */
  readonly base: number;
  /** A multiple of 4 KiB. */
  readonly sizeBytes: number;
  readonly registers: Readonly<Record<string, RegisterDeclaration>>;
}

export const PAGE_BYTES = 0x1000;

type Place = number | { readonly offset: number; readonly count?: number; readonly strideBytes?: number };

/**
 * Declares registers of which only name and place are known so far: a plain offset, or a place for an array. `reset` gives
 * power-on values. Every access to one of them is counted and warned about once.
 */
export function unimplemented(
  places: Readonly<Record<string, Place>>,
  reset: Readonly<Record<string, number>> = {},
): Record<string, RegisterDeclaration> {
  return Object.fromEntries(
    Object.entries(places).map(([name, place]): [string, RegisterDeclaration] => [
      name,
      { ...(typeof place === 'number' ? { offset: place } : place), reset: reset[name] ?? 0, unimplemented: true },
    ]),
  );
}
