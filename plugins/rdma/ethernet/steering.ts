/**
 * Flow steering: tables of rules that decide where a received frame goes. Matching is the hardware's own way: the
 * frame's headers are laid out as a match value, and a rule compares the bits that its group's mask names.
 */
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { objectTable } from '../firmware/object-table.js';
import {
  allocFlowCounterOut,
  createFlowGroupIn,
  createFlowGroupOut,
  createFlowTableIn,
  createFlowTableOut,
  deallocFlowCounterIn,
  deleteFteIn,
  destroyFlowGroupIn,
  destroyFlowTableIn,
  modifyFlowTableIn,
  queryFlowCounterIn,
  queryFlowCounterOut,
  setFlowTableRootIn,
  setFteIn,
} from '../layouts/commands.js';
import { destFormat, flowContext, flowTableContext, trafficCounter } from '../layouts/contexts.js';
import { bytesOf, subview } from '../layouts/layout.js';

/**
 * fte_match_param: outer headers, miscellaneous, inner headers, more; each of 64 bytes has a bit in
 * match_criteria_enable.
 */
export const MATCH_BYTES = 512;
const MATCH_PART_BYTES = 64;
/** flow_context.action (mlx5_ifc.h `MLX5_FLOW_CONTEXT_ACTION_*`). */
const ACTION = { DROP: 0x2, FORWARD: 0x4, COUNT: 0x8 } as const;
/** dest_format.destination_type (mlx5_ifc.h `MLX5_IFC_FLOW_DESTINATION_TYPE_*`). */
const DESTINATION = { TABLE: 1, TIR: 2 } as const;
/** flow_table_context.table_miss_action: go on in the table that it names. */
const MISS_TO_TABLE = 1;
/** The only kind of table that the capabilities offer (mlx5_ifc.h table_type: FS_FT_NIC_RX). */
const TYPE_NIC_RECEIVE = 0;
/** Tables that a frame may pass: more than any driver chains, few enough to stop a circle. */
const MAX_HOPS = 64;
const MAX_TABLES = 4096;
const MAX_GROUPS = 16_384;
const MAX_RULES = 65_536;
const MAX_DESTINATIONS = 256;
const ENTRY_BYTES = 8;

interface Group {
  readonly mask: Uint8Array;
  /** Bytes of the mask that are not zero: few. */
  readonly compared: Uint16Array;
  /** Indices of its rules, by what they compare: a frame costs one look-up per group, however many rules there are. */
  readonly rules: Map<string, Set<number>>;
}

interface Rule {
  readonly group: number;
  readonly value: Uint8Array;
  readonly action: number;
  readonly tag: number;
  readonly tables: readonly number[];
  readonly tirs: readonly number[];
  readonly counters: readonly number[];
}

interface Table {
  miss: number | undefined;
  readonly groups: Map<number, Group>;
  readonly rules: Map<number, Rule>;
}

interface Delivery {
  readonly tir: number;
  readonly tag: number;
}

export class Steering {
  readonly #tables = objectTable<Table>('flow table', 1, 0xffffff, MAX_TABLES);
  readonly #counters = objectTable<{ packets: number; octets: number }>('flow counter', 1, 0xffffff, MAX_RULES);
  #root: number | undefined;
  #nextGroup = 1;
  #groups = 0;
  #rules = 0;

  get commands(): CommandTable {
    return {
      CREATE_FLOW_TABLE: (call) => this.#createTable(call),
      MODIFY_FLOW_TABLE: (call) => {
        const table = this.#tables.get(modifyFlowTableIn.get(call.input, 'table_id'));
        table.miss = missTable(subview(call.input, modifyFlowTableIn.byteOf('flow_table_context')));
      },
      DESTROY_FLOW_TABLE: (call) => this.#destroyTable(destroyFlowTableIn.get(call.input, 'table_id')),
      SET_FLOW_TABLE_ROOT: (call) => this.#setRoot(call),
      CREATE_FLOW_GROUP: (call) => this.#createGroup(call),
      DESTROY_FLOW_GROUP: (call) => {
        const table = this.#tables.get(destroyFlowGroupIn.get(call.input, 'table_id'));
        if (table.groups.delete(destroyFlowGroupIn.get(call.input, 'group_id'))) this.#groups--;
      },
      SET_FLOW_TABLE_ENTRY: (call) => this.#setRule(call),
      DELETE_FLOW_TABLE_ENTRY: (call) => {
        const table = this.#tables.get(deleteFteIn.get(call.input, 'table_id'));
        if (removeRule(table, deleteFteIn.get(call.input, 'flow_index'))) this.#rules--;
      },
      ALLOC_FLOW_COUNTER: (call) => {
        const number = this.#counters.add(() => ({ packets: 0, octets: 0 }));
        allocFlowCounterOut.set(call.output, 'flow_counter_id', number);
      },
      DEALLOC_FLOW_COUNTER: (call) =>
        void this.#counters.remove(deallocFlowCounterIn.get(call.input, 'flow_counter_id')),
      QUERY_FLOW_COUNTER: (call) => this.#queryCounters(call),
    };
  }

  get counts(): { flowTables: number; flowGroups: number; flowRules: number } {
    return { flowTables: this.#tables.size, flowGroups: this.#groups, flowRules: this.#rules };
  }

  /** Where a frame goes; `match`: its headers as a match value. */
  steer(match: Uint8Array, frameBytes: number): Delivery[] {
    const deliveries: Delivery[] = [];
    const pending: number[] = this.#root === undefined ? [] : [this.#root];
    for (let hop = 0; hop < MAX_HOPS; hop++) {
      const number = pending.shift();
      if (number === undefined) break;
      const table = this.#tables.find(number);
      if (table === undefined) continue;
      const rule = findRule(table, match);
      if (rule === undefined) {
        if (table.miss !== undefined) pending.push(table.miss);
        continue;
      }
      this.#count(rule, frameBytes);
      if ((rule.action & ACTION.DROP) !== 0 || (rule.action & ACTION.FORWARD) === 0) continue;
      pending.push(...rule.tables);
      for (const tir of rule.tirs) deliveries.push({ tir, tag: rule.tag });
    }
    return deliveries;
  }

  #count(rule: Rule, frameBytes: number): void {
    if ((rule.action & ACTION.COUNT) === 0) return;
    for (const number of rule.counters) {
      const counter = this.#counters.find(number);
      if (counter === undefined) continue;
      counter.packets++;
      counter.octets += frameBytes;
    }
  }

  #createTable(call: CommandCall): void {
    const type = createFlowTableIn.get(call.input, 'table_type');
    if (type !== TYPE_NIC_RECEIVE) throw new CommandError(STATUS.BAD_PARAMETER, `flow tables of type ${type}`);
    const miss = missTable(subview(call.input, createFlowTableIn.byteOf('flow_table_context')));
    const number = this.#tables.add(() => ({ miss, groups: new Map(), rules: new Map() }));
    createFlowTableOut.set(call.output, 'table_id', number);
  }

  #destroyTable(number: number): void {
    const table = this.#tables.remove(number);
    this.#groups -= table.groups.size;
    this.#rules -= table.rules.size;
    if (this.#root === number) this.#root = undefined;
  }

  /** op_mod 1 goes back to no root (reset_root_to_default is not offered, but harmless). */
  #setRoot(call: CommandCall): void {
    const number = setFlowTableRootIn.get(call.input, 'table_id');
    if (setFlowTableRootIn.get(call.input, 'table_type') !== TYPE_NIC_RECEIVE) return;
    this.#tables.get(number);
    this.#root = call.opMod === 0 ? number : undefined;
  }

  #createGroup(call: CommandCall): void {
    const table = this.#tables.get(createFlowGroupIn.get(call.input, 'table_id'));
    if (this.#groups >= MAX_GROUPS) throw new CommandError(STATUS.LIMIT_EXCEEDED, `${this.#groups} flow groups`);
    const mask = bytesOf(createFlowGroupIn.part(call.input, 'match_criteria')).slice();
    const enabled = createFlowGroupIn.get(call.input, 'match_criteria_enable');
    for (let part = 0; part < MATCH_BYTES / MATCH_PART_BYTES; part++) {
      if (((enabled >>> part) & 1) === 0) mask.fill(0, part * MATCH_PART_BYTES, (part + 1) * MATCH_PART_BYTES);
    }
    const number = this.#nextGroup++;
    this.#groups++;
    const compared = Uint16Array.from([...mask.keys()].filter((at) => mask[at] !== 0));
    table.groups.set(number, { mask, compared, rules: new Map() });
    createFlowGroupOut.set(call.output, 'group_id', number);
  }

  #setRule(call: CommandCall): void {
    const table = this.#tables.get(setFteIn.get(call.input, 'table_id'));
    const index = setFteIn.get(call.input, 'flow_index');
    const context = subview(call.input, setFteIn.byteOf('flow_context'));
    const number = flowContext.get(context, 'group_id');
    const group = table.groups.get(number);
    if (group === undefined) throw new CommandError(STATUS.BAD_RESOURCE, `there is no flow group ${number}`);
    if (!table.rules.has(index) && this.#rules >= MAX_RULES) {
      throw new CommandError(STATUS.LIMIT_EXCEEDED, `${this.#rules} flow rules`);
    }
    const rule = { group: number, ...readRule(call, context) };
    if (!removeRule(table, index)) this.#rules++;
    table.rules.set(index, rule);
    const compared = comparedPart(group, rule.value);
    const same = group.rules.get(compared) ?? new Set();
    group.rules.set(compared, same.add(index));
  }

  #queryCounters(call: CommandCall): void {
    const first = queryFlowCounterIn.get(call.input, 'flow_counter_id');
    const start = queryFlowCounterOut.byteOf('flow_statistics');
    const fits = Math.max(0, Math.floor((call.outputBytes - start) / trafficCounter.sizeBytes));
    const wanted = Math.max(1, queryFlowCounterIn.get(call.input, 'num_of_counters'));
    for (let index = 0; index < Math.min(wanted, fits); index++) {
      const counter = this.#counters.find(first + index);
      if (counter === undefined) continue;
      const at = start + index * trafficCounter.sizeBytes;
      trafficCounter.set64(call.output, 'packets', BigInt(counter.packets), at);
      trafficCounter.set64(call.output, 'octets', BigInt(counter.octets), at);
    }
  }
}

function missTable(context: DataView): number | undefined {
  if (flowTableContext.get(context, 'table_miss_action') !== MISS_TO_TABLE) return undefined;
  return flowTableContext.get(context, 'table_miss_id');
}

function readRule(call: CommandCall, context: DataView): Omit<Rule, 'group'> {
  const destinations = flowContext.get(context, 'destination_list_size');
  const counters = flowContext.get(context, 'flow_counter_list_size');
  if (destinations + counters > MAX_DESTINATIONS) {
    throw new CommandError(STATUS.LIMIT_EXCEEDED, `a rule with ${destinations + counters} destinations`);
  }
  if (flowContext.get(context, 'extended_destination') === 1) {
    throw new CommandError(STATUS.BAD_PARAMETER, 'extended destinations are not offered');
  }
  const start = setFteIn.byteOf('flow_context') + flowContext.byteOf('destination');
  call.bytes(start, (destinations + counters) * ENTRY_BYTES);
  const tables: number[] = [];
  const tirs: number[] = [];
  for (let index = 0; index < destinations; index++) {
    const at = start + index * ENTRY_BYTES;
    const type = destFormat.get(call.input, 'destination_type', at);
    const number = destFormat.get(call.input, 'destination_id', at);
    if (type === DESTINATION.TABLE) tables.push(number);
    else if (type === DESTINATION.TIR) tirs.push(number);
    else throw new CommandError(STATUS.BAD_PARAMETER, `a destination of type ${type}`);
  }
  return {
    value: bytesOf(flowContext.part(context, 'match_value')).slice(0, MATCH_BYTES),
    action: flowContext.get(context, 'action'),
    tag: flowContext.get(context, 'flow_tag'),
    tables,
    tirs,
    counters: Array.from({ length: counters }, (_, index) =>
      call.input.getUint32(start + (destinations + index) * ENTRY_BYTES),
    ),
  };
}

/** The rule with the lowest index that matches. */
function findRule(table: Table, match: Uint8Array): Rule | undefined {
  let lowest = Number.POSITIVE_INFINITY;
  for (const group of table.groups.values()) {
    if (group.rules.size === 0) continue;
    for (const index of group.rules.get(comparedPart(group, match)) ?? []) lowest = Math.min(lowest, index);
  }
  return table.rules.get(lowest);
}

/** False when there was none. */
function removeRule(table: Table, index: number): boolean {
  const rule = table.rules.get(index);
  if (rule === undefined) return false;
  table.rules.delete(index);
  const group = table.groups.get(rule.group);
  if (group === undefined) return true;
  const compared = comparedPart(group, rule.value);
  const same = group.rules.get(compared);
  same?.delete(index);
  if (same?.size === 0) group.rules.delete(compared);
  return true;
}

/** The bits of a match value that a group compares. */
function comparedPart({ mask, compared }: Group, value: Uint8Array): string {
  let part = '';
  for (const at of compared) part += String.fromCharCode(value[at]! & mask[at]!);
  return part;
}
