import { startEmulator } from '../emulator/emulator.js';
import { bootGuest, buildGuestPrograms, ensureImage, ensureWarmMachine, findQemu } from '../qemu/index.js';
import { hostCounterKHz } from './host-clock.js';
import type { SessionTools } from './session.js';

/** The real ones. */
export const sessionTools: SessionTools = {
  startEmulator,
  findQemu,
  ensureImage,
  buildGuestPrograms,
  bootGuest,
  ensureWarmMachine,
  hostCounterKHz,
};
