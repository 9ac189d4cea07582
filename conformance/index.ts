/**
 * The vfio-user conformance rows for a server of one's own (`ghostbus/conformance`). Each row is a
 * client's script: messages, right and wrong, and what has to come back. All they need is a socket and,
 * behind it, the function that shape.ts describes.
 *
 * ```ts
 * for (const row of conformanceRows()) {
 *   it(`${row.id} ${row.what}`, async () => {
 *     const server = await startMyServer(row.variant);       // a fresh function for every row
 *     try { runConformanceRow(row, server.socketPath); } finally { await server.stop(); }
 *   });
 * }
 * ```
 */
import { GROUPS } from './checklist.js';
import { assertInSync } from './row.js';
import type { Variant } from './shape.js';
import { Wire } from './wire.js';

export { QEMU_CAPABILITIES, RawClient, type RawClientOptions, type ReceivedMessage } from './client.js';
export type { Variant } from './shape.js';
export * as functionShape from './shape.js';

/** One row that needs only the socket. */
export interface ConformanceRow {
  /** Letter of the group and number, for example `Q-29`. */
  readonly id: string;
  readonly group: string;
  /** What is sent and what has to come of it, in short. */
  readonly what: string;
  /** In what the function behind the socket has to differ from the usual one. */
  readonly variant: Variant;
  /** Why the row asks for something else than libvfio-user does; a server may well decide otherwise. */
  readonly disputed?: string;
}

const SCRIPTS = new Map<string, (wire: Wire) => void>();

const ROWS: readonly ConformanceRow[] = Object.entries(GROUPS).flatMap(([group, rows]) =>
  rows.flatMap(({ id, what, variant = {}, rejected, negotiated = true, run }) => {
    if (run === undefined) return [];
    SCRIPTS.set(id, (wire) => {
      if (negotiated) wire.client.negotiate();
      run(wire);
      wire.reconnect();
      assertInSync(wire);
    });
    return [{ id, group, what, variant, ...(rejected !== undefined && { disputed: rejected }) }];
  }),
);

/** The rows that can be run over a socket. Rows that look into this project's own server are not among them. */
export function conformanceRows(): readonly ConformanceRow[] {
  return ROWS;
}

export interface ConformanceOptions {
  /** Called while the client waits, for a server that runs in this very thread. Default: it runs elsewhere. */
  readonly idle?: () => void;
}

/**
 * Runs one row against the server that listens at `socketPath`: connects, as QEMU would, plays the script, connects
 * again and sees that the server still answers. It blocks its thread meanwhile.
 * @throws AssertionError with what came and what should have come
 */
export function runConformanceRow({ id }: ConformanceRow, socketPath: string, { idle }: ConformanceOptions = {}): void {
  const script = SCRIPTS.get(id);
  if (script === undefined) throw new Error(`there is no conformance row ${id} that can be run over a socket`);
  const wire = new Wire(socketPath, idle);
  try {
    script(wire);
  } finally {
    wire.close();
  }
}
