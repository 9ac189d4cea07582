/** What the architecture spec lets pass for now, each with its reason. The aim is an empty list. */
interface Exception {
  readonly from: string;
  readonly to: string;
  readonly reason: string;
}

const MIGRATING = 'device code moves to the public faces';

export const EXCEPTIONS: readonly Exception[] = [
  { from: 'plugins/', to: 'emulator/', reason: MIGRATING },
  { from: 'plugins/', to: 'demo/', reason: MIGRATING },
  { from: 'plugins/habana/test/', to: 'plugins/rdma/test/', reason: 'a spec of two devices belongs to neither' },
  { from: 'emulator/cli/', to: 'emulator/memory/', reason: 'devices are described without a memory of their own' },
];
