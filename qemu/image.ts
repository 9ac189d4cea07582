import type { Progress } from './provision.js';

/** What a guest boots from. All paths are on the host, in the user's cache, and are never written to. */
export interface GuestImage {
  /** bzImage. */
  kernelPath: string;
  /** As `uname -r` prints it in the guest. */
  kernelRelease: string;
  /** Initial RAM disk with our init; one boot's extra files are appended to it. */
  initrdPath: string;
  /** Read-only file system with user space. */
  userlandPath: string;
  /** Read-only file system with /lib/modules/RELEASE. */
  modulesPath: string;
}

export interface ImageOptions {
  /** `lts` (Debian 13's kernel), `latest` (Debian 13 backports' kernel), or the path of a kernel of the user's own. */
  kernel: string;
  /** Debian packages to add to user space. */
  packages?: readonly string[];
  onProgress?: Progress;
}

/**
 * Makes the image for the options, or takes it from the cache.
 * @throws HostSetupError when the host lacks what is needed, or a user's kernel is unsuitable.
 */
export async function ensureImage(_options: ImageOptions): Promise<GuestImage> {
  throw new Error('not written yet');
}
