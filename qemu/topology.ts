/** How the functions hang below the root complex. */
export const topologies = ['root-ports', 'switch', 'switch-acs'] as const;
export type Topology = (typeof topologies)[number];

/** One function served over vfio-user. `id` becomes QEMU's device id: letters, digits, `-`, `_` or `.`, first a letter. */
export interface AttachedFunction {
  id: string;
  /** Absolute path of the UNIX socket that the function is served on. */
  socketPath: string;
}
