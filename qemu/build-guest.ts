import type { GuestFile } from './guest-file.js';
import type { GuestImage } from './image.js';
import type { Progress } from './provision.js';

export interface GuestBuildOptions {
  /** Kernel modules are built against the headers of this image's kernel. */
  image: GuestImage;
  /** C files or folders of C files; each file becomes /usr/local/bin/NAME. Default: `qemu/guest` of this package. */
  programs?: readonly string[];
  /** Folders with a Kbuild file; their modules go to /lib/modules/RELEASE/extra. */
  moduleFolders?: readonly string[];
  onProgress?: Progress;
}

/**
 * Compiles programs and kernel modules for the guest with Debian 13's own compiler, or takes them from the cache. The result
 * is passed to `bootGuest` as `extraFiles`.
 * @throws Error with the compiler's output when something does not compile.
 */
export async function buildGuestPrograms(_options: GuestBuildOptions): Promise<GuestFile[]> {
  throw new Error('not written yet');
}
