import { bootGuest, buildGuestPrograms, ensureImage, findQemu } from '../../qemu/index.js';
import { startEmulator } from '../emulator.js';
import type { SessionTools } from './session.js';

/** The real ones. */
export const sessionTools: SessionTools = { startEmulator, findQemu, ensureImage, buildGuestPrograms, bootGuest };
