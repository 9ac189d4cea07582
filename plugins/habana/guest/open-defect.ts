/**
 * The driver's `open()` defect (docs/upstream) and our module around it: commit 641bb4394f40 came with 6.12; up to
 * 7.3.4 habanalabs has not followed.
 */
import { type GuestFile, type GuestKernel, type GuestModule, packageFile } from 'ghostbus';

export function hasOpenDefect(kernelRelease: string): boolean {
  const [major = 0, minor = 0] = kernelRelease.split(/[.-]/).map(Number);
  return major > 6 || (major === 6 && minor >= 12);
}

export function workaroundModules({ release }: GuestKernel): GuestModule[] {
  if (!hasOpenDefect(release)) return [];
  return [
    {
      folder: packageFile(import.meta.url, 'plugins/habana/guest/workaround'),
      purpose: 'workaround',
      why: 'habanalabs cannot be opened on this kernel (docs/upstream)',
    },
  ];
}

/** Where the guest has the workaround, it is loaded with the driver. */
export function workaroundConfiguration(): GuestFile {
  const text = 'softdep habanalabs pre: ghostbus_habana_open\n';
  return { path: '/etc/modprobe.d/ghostbus-habana.conf', contents: new TextEncoder().encode(text) };
}
