/**
 * Pages that the driver lends the adapter. A card keeps its contexts there; this one keeps them itself, so it only asks
 * for a few, and gives each back exactly once.
 */

import { managePagesIn, managePagesOut, queryPagesOut } from '../layouts/commands.js';
import type { Profile } from '../port/profile.js';
import { type CommandCall, CommandError, type CommandTable, STATUS } from './command.js';

/** query_pages_in.op_mod (core/pagealloc.c): pages for boot, for initialization, or regular ones. */
const QUERY = { BOOT: 1, INIT: 2 } as const;
/** manage_pages_in.op_mod: the driver cannot give, gives, or takes back. */
const MANAGE = { CANNOT_GIVE: 0, GIVE: 1, TAKE: 2 } as const;
const ADDRESS_BYTES = 8;
const MAX_PAGES = 65_536;

export class PageSupply {
  readonly #wanted: Profile['pages'];
  readonly #pages: bigint[] = [];

  constructor(profile: Profile) {
    this.#wanted = profile.pages;
  }

  get commands(): CommandTable {
    return {
      QUERY_PAGES: (call) => queryPagesOut.set(call.output, 'num_pages', this.#wantedFor(call.opMod)),
      MANAGE_PAGES: (call) => this.#manage(call),
    };
  }

  /** Pages lent at the moment. */
  get count(): number {
    return this.#pages.length;
  }

  #wantedFor(opMod: number): number {
    if (opMod === QUERY.BOOT) return this.#wanted.boot;
    return opMod === QUERY.INIT ? this.#wanted.init : 0;
  }

  #manage(call: CommandCall): void {
    const count = managePagesIn.get(call.input, 'input_num_entries');
    const start = managePagesIn.byteOf('pas');
    if (call.opMod === MANAGE.GIVE) {
      if (this.#pages.length + count > MAX_PAGES) throw new CommandError(STATUS.LIMIT_EXCEEDED, `${count} more pages`);
      call.bytes(start, count * ADDRESS_BYTES);
      for (let index = 0; index < count; index++) this.#pages.push(call.input.getBigUint64(start + 8 * index));
    } else if (call.opMod === MANAGE.TAKE) {
      const fits = Math.floor((call.outputBytes - managePagesOut.byteOf('pas')) / ADDRESS_BYTES);
      const given = this.#pages.splice(0, Math.max(0, Math.min(count, fits)));
      managePagesOut.set(call.output, 'output_num_entries', given.length);
      given.forEach((address, index) => {
        call.output.setBigUint64(managePagesOut.byteOf('pas') + ADDRESS_BYTES * index, address);
      });
    } else if (call.opMod !== MANAGE.CANNOT_GIVE) {
      throw new CommandError(STATUS.BAD_PARAMETER, `MANAGE_PAGES with op_mod ${call.opMod}`);
    }
  }
}
