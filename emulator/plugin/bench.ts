/**
 * What a device costs in a guest, measured under its driver: `npm run bench -- --guest`. Nothing here passes or fails.
 */

/** A guest that has booted with the device. */
export interface BenchMachine {
  /** `kvm` or `tcg`: what the guest runs under. */
  readonly accel: string;
  /** PCI address of a function, as `0000:01:00.0`. */
  address(functionName: string): string;
  /** Standard output of a shell script in the guest. @throws Error with what it printed, unless it exits with 0 */
  output(script: string): Promise<string>;
  print(line: string): void;
  /** Prints speeds as ratios to one that is measured in the same guest. */
  printRatios(speeds: readonly (readonly [name: string, speed: number])[], reference: number): void;
}

export interface Benchmark {
  /** What is measured, to go on with `… inside a guest`: `a mapped BAR`. */
  readonly name: string;
  /** Options of the device; it is there once, and nothing else is. */
  readonly options?: Readonly<Record<string, string>>;
  /** Debian packages that the guest needs beside those of the device. */
  readonly packages?: readonly string[];
  /** Prints what it finds, best as ratios to something measured in the same guest, since hosts differ. */
  measure(machine: BenchMachine): Promise<void>;
}

/** The one in the middle, for what a busy host makes slower now and then. */
export function median(values: readonly number[]): number {
  return values.toSorted((one, other) => one - other)[values.length >> 1]!;
}
