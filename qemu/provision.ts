/** A QEMU that has `-device vfio-user-pci`. */
export interface Qemu {
  /** Program and leading arguments; the machine's arguments follow. */
  command: readonly [string, ...string[]];
  /** As QEMU prints it, for example `11.1.3`. */
  version: string;
  /** Where it was found: `$GHOSTBUS_QEMU`, PATH, or unpacked from Debian packages into the user's cache. */
  source: 'environment' | 'path' | 'private';
}

/** Receives one line of plain text for each step that takes noticeable time. */
export type Progress = (text: string) => void;

export interface FindQemuOptions {
  onProgress?: Progress;
}

/**
 * Finds a QEMU with `-device vfio-user-pci`: `$GHOSTBUS_QEMU`, then PATH, then a private one that is unpacked from Debian
 * packages into the user's cache (once).
 * @throws HostSetupError when none can be had on this host.
 */
export async function findQemu(_options: FindQemuOptions = {}): Promise<Qemu> {
  throw new Error('not written yet');
}
