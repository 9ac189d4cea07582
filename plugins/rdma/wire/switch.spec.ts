import assert from 'node:assert/strict';
import type { Link } from '../port/profile.js';
import { gidOf } from '../test/driver.js';
import { type Station, Switch } from './switch.js';

interface Made {
  readonly link?: Link;
  readonly lid?: number;
  readonly mac?: number;
  readonly gids?: readonly number[];
}

describe('switch', () => {
  let fabric: Switch;

  /** A station whose port is up until `down` names it. */
  const down = new Set<Station>();
  function plug({ link = 'roce', lid = 0, mac = 0, gids = [] }: Made): Station {
    const station: Station = {
      link,
      vport: {
        get isUp() {
          return !down.has(station);
        },
        lid,
        mac,
        hasGid: (gid) => gids.includes(gid[15]!),
        acceptsMac: () => true,
      },
      responders: { find: () => undefined, findForDatagram: () => undefined, members: () => [] },
      recorder: undefined,
      receiveFrame: () => {},
    };
    fabric.plug(station);
    return station;
  }

  const to = (gid: number, mac = 0, lid = 0, hasGrh = true) => ({ gid: gidOf(gid), mac, lid, hasGrh });

  beforeEach(() => {
    fabric = new Switch();
    down.clear();
  });

  it('finds by GID on Ethernet, and among equals by MAC address', () => {
    const own = plug({ mac: 1, gids: [1] });
    const [second, third] = [plug({ mac: 2, gids: [2, 9] }), plug({ mac: 3, gids: [3, 9] })];
    assert.equal(fabric.resolve(own, to(2)), second);
    assert.equal(fabric.resolve(own, to(9, 3)), third);
    assert.equal(fabric.resolve(own, to(9, 77)), second, 'an unknown MAC address: the first that has the GID');
    assert.equal(fabric.resolve(own, to(8)), undefined);
  });

  it('finds by LID on InfiniBand unless there is a route header, and never across links', () => {
    const own = plug({ link: 'ib', lid: 1 });
    const other = plug({ link: 'ib', lid: 2, gids: [2] });
    plug({ lid: 3, gids: [3] });
    assert.equal(fabric.resolve(own, to(0, 0, 2, false)), other);
    assert.equal(fabric.resolve(own, to(2, 0, 77)), other);
    assert.equal(fabric.resolve(own, to(0, 0, 3, false)), undefined);
    assert.equal(fabric.resolve(own, to(3)), undefined);
  });

  it('reaches nobody whose cable is out, nobody from a port that is down, and nobody who left', () => {
    const own = plug({ gids: [1] });
    const other = plug({ gids: [2] });
    down.add(other);
    assert.deepEqual(fabric.neighbours(own), [own]);
    assert.equal(fabric.resolve(own, to(2)), undefined);
    down.clear();
    down.add(own);
    assert.equal(fabric.resolve(own, to(2)), undefined);
    down.clear();
    fabric.unplug(other);
    assert.equal(fabric.resolve(own, to(2)), undefined);
  });
});
