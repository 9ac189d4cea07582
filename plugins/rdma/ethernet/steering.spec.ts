import assert from 'node:assert/strict';
import { CommandCall, CommandError, type CommandTable } from '../firmware/command.js';
import {
  createFlowGroupIn,
  createFlowGroupOut,
  createFlowTableIn,
  createFlowTableOut,
  deleteFteIn,
  setFlowTableRootIn,
  setFteIn,
} from '../layouts/commands.js';
import { destFormat, flowContext, flowTableContext, fteMatchSetLyr24 } from '../layouts/contexts.js';
import { bytesOf, subview } from '../layouts/layout.js';
import { MATCH_BYTES, Steering } from './steering.js';

/** mlx5_ifc.h: forward, drop; destinations: table, TIR. */
const FORWARD = 4;
const DROP = 2;
const TABLE = 1;
const TIR = 2;

describe('flow steering', () => {
  let steering: Steering;

  beforeEach(() => {
    steering = new Steering();
  });

  function run(name: keyof CommandTable, input: DataView): DataView {
    const call = new CommandCall(bytesOf(input), 16);
    steering.commands[name]!(call);
    return call.output;
  }

  function createTable(missTo?: number): number {
    const input = createFlowTableIn.create();
    const context = createFlowTableIn.byteOf('flow_table_context');
    if (missTo !== undefined) flowTableContext.fill(input, { table_miss_action: 1, table_miss_id: missTo }, context);
    return createFlowTableOut.get(run('CREATE_FLOW_TABLE', input), 'table_id');
  }

  function setRoot(table: number): void {
    const input = setFlowTableRootIn.create();
    setFlowTableRootIn.set(input, 'table_id', table);
    run('SET_FLOW_TABLE_ROOT', input);
  }

  /** A group that compares the Ethernet type. */
  function createGroup(table: number, ethertypeMask: number): number {
    const input = createFlowGroupIn.create();
    createFlowGroupIn.fill(input, { table_id: table, end_flow_index: 15, match_criteria_enable: 1 });
    fteMatchSetLyr24.set(input, 'ethertype', ethertypeMask, createFlowGroupIn.byteOf('match_criteria'));
    return createFlowGroupOut.get(run('CREATE_FLOW_GROUP', input), 'group_id');
  }

  function setRule(
    table: number,
    group: number,
    index: number,
    ethertype: number,
    action: number,
    to: readonly [type: number, id: number][],
  ): void {
    const input = new DataView(
      new ArrayBuffer(setFteIn.byteOf('flow_context') + flowContext.sizeBytes + 8 * to.length),
    );
    setFteIn.fill(input, { table_id: table, flow_index: index });
    const context = subview(input, setFteIn.byteOf('flow_context'));
    flowContext.fill(context, { group_id: group, action, destination_list_size: to.length });
    fteMatchSetLyr24.set(context, 'ethertype', ethertype, flowContext.byteOf('match_value'));
    to.forEach(([type, id], position) => {
      const at = flowContext.byteOf('destination') + 8 * position;
      destFormat.fill(context, { destination_type: type, destination_id: id }, at);
    });
    run('SET_FLOW_TABLE_ENTRY', input);
  }

  function tirsFor(ethertype: number): number[] {
    const match = new Uint8Array(MATCH_BYTES);
    fteMatchSetLyr24.set(new DataView(match.buffer), 'ethertype', ethertype);
    return steering.steer(match, 64).map(({ tir }) => tir);
  }

  it('drops everything without a root', () => {
    assert.deepEqual(tirsFor(0x800), []);
  });

  it('takes the matching rule of lowest index, and follows tables', () => {
    const second = createTable();
    const first = createTable();
    setRoot(first);
    const exact = createGroup(first, 0xffff);
    const all = createGroup(first, 0);
    setRule(first, all, 9, 0, FORWARD, [[TIR, 1]]);
    setRule(first, exact, 3, 0x800, FORWARD, [[TABLE, second]]);
    setRule(second, createGroup(second, 0), 0, 0, FORWARD, [
      [TIR, 7],
      [TIR, 8],
    ]);
    assert.deepEqual(tirsFor(0x800), [7, 8]);
    assert.deepEqual(tirsFor(0x806), [1]);
    const input = deleteFteIn.create();
    deleteFteIn.fill(input, { table_id: first, flow_index: 3 });
    run('DELETE_FLOW_TABLE_ENTRY', input);
    assert.deepEqual(tirsFor(0x800), [1]);
  });

  it('forgets what a rule compared when it is set anew, in another group too', () => {
    const table = createTable();
    setRoot(table);
    const exact = createGroup(table, 0xffff);
    setRule(table, exact, 3, 0x800, FORWARD, [[TIR, 1]]);
    setRule(table, exact, 3, 0x806, FORWARD, [[TIR, 2]]);
    assert.deepEqual([tirsFor(0x800), tirsFor(0x806)], [[], [2]]);
    setRule(table, createGroup(table, 0), 3, 0, FORWARD, [[TIR, 3]]);
    setRule(table, exact, 5, 0x806, FORWARD, [[TIR, 4]]);
    assert.deepEqual([tirsFor(0x800), tirsFor(0x806)], [[3], [3]]);
    assert.equal(steering.counts.flowRules, 2);
  });

  it('goes on in the table for misses, and drops where a rule says so', () => {
    const last = createTable();
    setRule(last, createGroup(last, 0xffff), 0, 0x800, FORWARD, [[TIR, 5]]);
    const first = createTable(last);
    setRoot(first);
    setRule(first, createGroup(first, 0xffff), 0, 0x86dd, DROP, []);
    assert.deepEqual(tirsFor(0x800), [5]);
    assert.deepEqual(tirsFor(0x86dd), []);
  });

  it('ends in a circle of tables', () => {
    const table = createTable();
    setRoot(table);
    setRule(table, createGroup(table, 0), 0, 0, FORWARD, [
      [TABLE, table],
      [TABLE, table],
    ]);
    assert.deepEqual(tirsFor(0x800), []);
  });

  it('refuses rules of groups that are not there, and more destinations than it was given', () => {
    const table = createTable();
    assert.throws(() => setRule(table, 99, 0, 0, FORWARD, []), CommandError);
    const group = createGroup(table, 0);
    const input = new DataView(new ArrayBuffer(setFteIn.byteOf('flow_context') + flowContext.sizeBytes));
    setFteIn.fill(input, { table_id: table });
    flowContext.fill(
      input,
      { group_id: group, action: FORWARD, destination_list_size: 200 },
      setFteIn.byteOf('flow_context'),
    );
    assert.throws(() => run('SET_FLOW_TABLE_ENTRY', input), CommandError);
  });
});
