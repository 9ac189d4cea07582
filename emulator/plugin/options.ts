import { z } from 'zod';

export interface ByteSizeLimits {
  readonly minBytes?: number;
  readonly maxBytes?: number;
  /** BARs and rings must be powers of two. */
  readonly powerOfTwo?: boolean;
}

const UNIT_BYTES: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/**
 * Reads a size such as `4096`, `512M`, `16G` or `0x1000` (units are powers of 1024, upper or lower case, an `iB` or `B`
 * may follow). Throws an Error that names the text when it is no size or not exact below 2^53.
 */
export function parseByteSize(text: string): number {
  const match = /^(0x[0-9a-f]+|\d+)(?:([kmgt])(?:i?b)?)?$/i.exec(text.trim());
  const sizeBytes = match ? Number(match[1]) * UNIT_BYTES[(match[2] ?? '').toUpperCase()]! : Number.NaN;
  if (!Number.isSafeInteger(sizeBytes)) {
    throw new Error(
      `${JSON.stringify(text)} is not a size; write bytes or a number with K, M, G or T, for example 16G`,
    );
  }
  return sizeBytes;
}

/** Writes a size as the shortest text that {@link parseByteSize} reads back: 17179869184 becomes `16G`. */
export function formatByteSize(sizeBytes: number): string {
  const unit = ['T', 'G', 'M', 'K'].find((name) => sizeBytes > 0 && sizeBytes % UNIT_BYTES[name]! === 0) ?? '';
  return `${sizeBytes / UNIT_BYTES[unit]!}${unit}`;
}

function limitViolation(sizeBytes: number, limits: ByteSizeLimits): string | undefined {
  const shown = formatByteSize(sizeBytes);
  if (limits.powerOfTwo && (sizeBytes < 1 || 2 ** Math.round(Math.log2(sizeBytes)) !== sizeBytes)) {
    return `${shown} is not a power of two`;
  }
  if (limits.minBytes !== undefined && sizeBytes < limits.minBytes) {
    return `${shown} is less than the smallest size ${formatByteSize(limits.minBytes)}`;
  }
  if (limits.maxBytes !== undefined && sizeBytes > limits.maxBytes) {
    return `${shown} is more than the largest size ${formatByteSize(limits.maxBytes)}`;
  }
  return undefined;
}

/**
 * Schema of a size option: takes `16G` as text from the command line or a number of bytes from a configuration file,
 * gives a number of bytes. Add the default in the same notation: `byteSize({ powerOfTwo: true }).default('16G')` is
 * written `.prefault('16G')`, so that the default is parsed like any other value.
 */
export function byteSize(limits: ByteSizeLimits = {}) {
  return z.union([z.string(), z.number()]).transform((value, context): number => {
    try {
      const sizeBytes = parseByteSize(String(value));
      const violation = limitViolation(sizeBytes, limits);
      if (violation === undefined) return sizeBytes;
      context.addIssue({ code: 'custom', message: violation, input: value });
    } catch (error) {
      context.addIssue({ code: 'custom', message: (error as Error).message, input: value });
    }
    return z.NEVER;
  });
}
