/** What the main thread and the bus thread say to each other. Everything is structured-cloneable. */
import type { PeerRouting } from './memory/fabric.js';
import type { Identity } from './plugin/index.js';

/** One device instance to create on the bus thread. */
export interface DeviceInstance {
  /** The module whose default export is the plugin. */
  readonly moduleUrl: string;
  /** As the plugin's schema parsed them. */
  readonly options: unknown;
  /** Name of the instance, for example `gpu0`. */
  readonly name: string;
  /** Position among the instances of the same plugin. */
  readonly instance: number;
}

export interface BusThreadData {
  readonly devices: readonly DeviceInstance[];
  readonly socketDirectory: string;
  /** Readable when a command waits on the message port. */
  readonly wakeFd: number;
  /** Shared memory: since when the bus thread is inside one handler (see the bus's option of this name). */
  readonly busySinceMs: Float64Array;
  readonly spinUs: number;
  readonly peerRouting: PeerRouting;
}

/** A function that is being served. */
export interface ServedFunction {
  /** For example `gpu0`. */
  readonly name: string;
  readonly plugin: string;
  readonly identity: Identity;
  readonly socketPath: string;
  /** How large its memory BARs are together. */
  readonly barBytes: { readonly prefetchable: number; readonly other: number };
}

export type BusCommand =
  | {
      readonly kind: 'control';
      readonly function: string;
      readonly command: string;
      readonly args: Record<string, unknown>;
    }
  | { readonly kind: 'state'; readonly function?: string }
  | { readonly kind: 'reset-counters' }
  | {
      readonly kind: 'read-bar';
      readonly function: string;
      readonly bar: number;
      readonly offset: number;
      readonly lengthBytes: number;
    }
  | { readonly kind: 'stop' };

export interface BusRequest {
  readonly id: number;
  readonly command: BusCommand;
}

export type BusReport =
  /** `threadId` is Linux's, of the bus thread. */
  | { readonly kind: 'ready'; readonly functions: readonly ServedFunction[]; readonly threadId: number }
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'reply'; readonly id: number; readonly result: unknown }
  | { readonly kind: 'refused'; readonly id: number; readonly message: string }
  | {
      readonly kind: 'log';
      readonly level: 'debug' | 'info' | 'warn' | 'error';
      readonly source: string;
      readonly message: string;
      readonly fields: Readonly<Record<string, unknown>>;
    };
