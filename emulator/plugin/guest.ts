/**
 * What a device brings into the guest, as data: the part of the plugin API that a session carries out before it boots.
 */

/**
 * One file laid into the guest's root before its first driver loads: a firmware stub, a configuration snippet, a
 * program.
 */
export interface GuestFile {
  /** Absolute path in the guest. */
  readonly path: string;
  readonly contents: Uint8Array;
  /** Permission bits; 0o644 unless given. */
  readonly mode?: number;
}

/** The guest's kernel, as far as a device may want to know it. */
export interface GuestKernel {
  /** As `uname -r` prints it, or how that begins; for example `6.12.95+deb13-amd64`. */
  readonly release: string;
}

/**
 * A kernel module that is built for the guest's kernel and put among its modules; udev and `modprobe` find it there.
 */
export interface GuestModule {
  /** Absolute path of a folder with a Kbuild file (see `packageFile`). */
  readonly folder: string;
  /**
   * `driver`: the device has no stock driver, or wants its own. `workaround`: it makes up for a defect of a stock
   * driver; a user may go without, and a kernel for which it cannot be built boots all the same.
   */
  readonly purpose: 'driver' | 'workaround';
  /** For people: what would not work without it, for example `foo cannot be opened on this kernel (docs/upstream)`. */
  readonly why: string;
}

/** What a device brings into every guest that has it. */
export interface PluginGuest<Options = unknown> {
  /** Kernel modules that drive it, stock ones or its own; shown by `ghostbus devices`. */
  readonly drivers?: readonly string[];
  /** Files that its drivers and programs look for. */
  files?(options: Options): readonly GuestFile[];
  /** Parameters that modprobe passes to modules, by module name: `{ foo: 'fw_load_type=0 debug=1' }`. */
  moduleOptions?(options: Options): Readonly<Record<string, string>>;
  /**
   * Absolute paths of folders with C programs (see `packageFile`): each `NAME.c` directly in one becomes
   * `/usr/local/bin/NAME`. It may include headers of its folder, and those of ghostbus: `#include "fail.h"`, `#include
   * "dmabuf-kit.h"`. Of its leading `//` lines, `// link: -lfoo` adds compiler flags and `// headers: ../driver` a
   * folder, relative to it, with further headers.
   */
  readonly programs?: readonly string[];
  /** Kernel modules of its own for this kernel. */
  modules?(kernel: GuestKernel): readonly GuestModule[];
  /** Debian packages that its programs and its users need in the guest, NAME or NAME/SUITE. */
  readonly packages?: readonly string[];
  /** Debian packages that its programs are compiled with. */
  readonly buildPackages?: readonly string[];
}
