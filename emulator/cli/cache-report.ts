/** What `ghostbus cache --json` prints, as schemas. */
import { z } from 'zod';
import { CACHE_STATES, type CacheEntry } from '../../qemu/index.js';

const cacheEntry = z
  .strictObject({
    name: z.string().describe('its folder in the cache'),
    kind: z.string(),
    description: z.string().describe('empty when nobody said what it is'),
    state: z.enum(CACHE_STATES).describe('left over: of a process that ended while it made or removed the entry'),
    madeAt: z.iso.datetime(),
    lastUsedAt: z.iso.datetime(),
    sizeBytes: z.int().describe('on the disk; what several entries share is counted for the one made first'),
  })
  .readonly();

export const cacheReport = z
  .strictObject({
    folder: z.string(),
    entries: z.array(cacheEntry).readonly().describe('the last used first'),
    totalBytes: z.int(),
    snapshotBytes: z.int(),
    snapshotLimitBytes: z.int().describe('when a snapshot is made, others go until all together take no more'),
  })
  .readonly()
  .meta({ title: 'ghostbus cache list --json' });

export const pruneReport = z
  .strictObject({
    folder: z.string(),
    dryRun: z.boolean().describe('true: removed is what would be'),
    removed: z.array(cacheEntry).readonly(),
    freedBytes: z.int(),
  })
  .readonly()
  .meta({ title: 'ghostbus cache prune --json' });

export type CacheReport = z.infer<typeof cacheReport>;
export type PruneReport = z.infer<typeof pruneReport>;

export const reportedEntry = (entry: CacheEntry): z.infer<typeof cacheEntry> => ({
  ...entry,
  madeAt: entry.madeAt.toISOString(),
  lastUsedAt: entry.lastUsedAt.toISOString(),
});

export const sumOfSizes = (entries: readonly { sizeBytes: number }[]): number =>
  entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
