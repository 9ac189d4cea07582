/** All memory keys of an adapter: commands, look-up, and the checks before a translation. */
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { type ObjectTable, objectTable } from '../firmware/object-table.js';
import { createMkeyIn, queryMkeyOut, querySpecialContextsOut } from '../layouts/commands.js';
import { mkc } from '../layouts/contexts.js';
import { bytesOf, copyOf } from '../layouts/layout.js';
import { type Access, AccessRefused, type KeyUser, SPECIAL_KEY } from './access.js';
import type { HeapBudget } from './heap-budget.js';
import type { Extent } from './keyed-memory.js';
import { ACCESS_MODE, ANY_QP, accessModeOf, MemoryKey, OCTOWORD_BYTES } from './memory-key.js';
import { Translation, type TranslationSource } from './translation.js';

const ACCESS_MODES: readonly number[] = Object.values(ACCESS_MODE);
/** Indices below are the special keys. */
const FIRST_INDEX = 0x1000;
const LAST_INDEX = 0xffffff;

export class MemoryKeys implements TranslationSource {
  readonly #budget: HeapBudget;
  readonly #keys: ObjectTable<MemoryKey>;
  readonly #deviceMemory: Pick<TranslationSource, 'isDeviceMemory'>;

  constructor(budget: HeapBudget, limit: number, deviceMemory: Pick<TranslationSource, 'isDeviceMemory'>) {
    this.#budget = budget;
    this.#deviceMemory = deviceMemory;
    this.#keys = objectTable('memory key', FIRST_INDEX, LAST_INDEX, limit);
  }

  get commands(): CommandTable {
    return {
      CREATE_MKEY: (call) => this.#create(call),
      DESTROY_MKEY: (call) => this.#keys.remove(call.number).release(),
      QUERY_MKEY: (call) => {
        const key = this.#keys.get(call.number);
        bytesOf(queryMkeyOut.part(call.output, 'memory_key_mkey_entry')).set(bytesOf(key.context));
      },
      QUERY_SPECIAL_CONTEXTS: (call) =>
        querySpecialContextsOut.fill(call.output, {
          resd_lkey: SPECIAL_KEY.RESERVED_LOCAL,
          null_mkey: SPECIAL_KEY.NULL,
          terminate_scatter_list_mkey: SPECIAL_KEY.TERMINATE,
        }),
    };
  }

  get count(): number {
    return this.#keys.size;
  }

  /** The key of that index, whatever its variant. */
  findIndex(index: number): MemoryKey | undefined {
    return this.#keys.find(index);
  }

  /** The key with exactly this value, if it is in use. */
  find(value: number): MemoryKey | undefined {
    const key = this.#keys.find(value >>> 8);
    return key !== undefined && key.key === value >>> 0 && !key.isFree ? key : undefined;
  }

  isDeviceMemory(barAddress: bigint, lengthBytes: number): boolean {
    return this.#deviceMemory.isDeviceMemory(barAddress, lengthBytes);
  }

  /**
   * Appends where the bytes of `access` are. Checks the key in the order of the InfiniBand specification (volume 1
   * §10.6.3): existence, protection domain, rights, range, then each page. Throws {@link AccessRefused} or PageMissing.
   */
  translate(user: KeyUser, access: Access, extents: Extent[]): void {
    if (access.lengthBytes === 0) return;
    if (access.key === SPECIAL_KEY.NULL) {
      extents.push({ kind: 'nothing', lengthBytes: access.lengthBytes });
      return;
    }
    const translation = new Translation(this, access, extents);
    if (access.key === SPECIAL_KEY.RESERVED_LOCAL && user.usesReservedKey && access.right.startsWith('local')) {
      translation.runPhysical(access.address, access.lengthBytes);
      return;
    }
    translation.run(this.#usable(user, access));
  }

  #usable(user: KeyUser, access: Access): MemoryKey {
    const key = this.find(access.key);
    if (key === undefined) throw new AccessRefused(access, 'there is no such key, or it is free');
    const bound = mkc.get(key.context, 'qpn');
    if (bound !== ANY_QP && bound !== user.number) {
      throw new AccessRefused(access, `the key is bound to queue pair ${bound}`);
    }
    if (mkc.get(key.context, 'pd') !== user.protectionDomain) {
      throw new AccessRefused(access, 'the key belongs to another protection domain');
    }
    if (!key.has(access.right)) throw new AccessRefused(access, 'the key lacks that right');
    return key;
  }

  #create(call: CommandCall): void {
    const context = copyOf(createMkeyIn.part(call.input, 'memory_key_mkey_entry'));
    const mode = accessModeOf(context);
    if (!ACCESS_MODES.includes(mode)) {
      throw new CommandError(STATUS.BAD_PARAMETER, `memory keys of access mode ${mode}`);
    }
    const octowords = createMkeyIn.get(call.input, 'translations_octword_actual_size');
    const entries = call.bytes(createMkeyIn.byteOf('klm_pas_mtt'), octowords * OCTOWORD_BYTES);
    const pageFaults = createMkeyIn.get(call.input, 'pg_access') === 1;
    const index = this.#keys.add((number) => {
      const key = new MemoryKey(this.#budget, number, context, pageFaults);
      if (!key.writeTable(0, entries)) {
        throw new CommandError(STATUS.LIMIT_EXCEEDED, `${entries.length} bytes of translations do not fit`);
      }
      return key;
    });
    call.answerNumber(index);
  }
}
