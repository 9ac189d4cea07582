/** What devices share: written once, used by those of this repository and by others. */
export { type BitField, BitFields32, BitFields64, type FieldValue } from './bit-fields.js';
export { FloodGuard, type FloodLimit } from './flood-guard.js';
export { ImageBuilder, type ImageOptions } from './image-builder.js';
export { ObjectRegistry, type ObjectRegistryOptions, RegistryError, type RegistryRefusal } from './object-registry.js';
export { isPowerOfTwo, Ring, type RingShape } from './ring.js';
export {
  COST,
  type Runnable,
  Scheduler,
  type SchedulerOptions,
  SLICE_UNITS,
  type TurnResult,
  WorkBudget,
  type WorkUnits,
} from './scheduler.js';
