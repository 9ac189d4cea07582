import assert from 'node:assert/strict';
import { fteMatchSetLyr24 } from '../layouts/contexts.js';
import { onesComplementSum } from './checksum.js';
import { completeChecksums, hashInput, matchValueOf, parseFrame, receiveChecksum, segment, toeplitz } from './frame.js';

const HEADER_BYTES = 14 + 20 + 20;

/** A TCP segment over IPv4 from 66.9.149.187:2794 to 161.142.100.80:1766, without checksums. */
function tcpFrame(payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + payload.length);
  const view = new DataView(frame.buffer);
  frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
  frame.set([0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, 6, 0, 0, 66, 9, 149, 187, 161, 142, 100, 80], 14);
  view.setUint16(16, 40 + payload.length);
  view.setUint16(34, 2794);
  view.setUint16(36, 1766);
  view.setUint32(38, 1000);
  frame[46] = 0x50;
  // ACK, PSH, FIN.
  frame[47] = 0x19;
  frame.set(payload, HEADER_BYTES);
  return frame;
}

/** RFC 1071: a receiver sums header and checksum to all ones. */
function isValid(frame: Uint8Array): boolean {
  const ip = onesComplementSum(frame.subarray(14, 34));
  const segmentBytes = frame.length - 34;
  const tcp = onesComplementSum(frame.subarray(34), onesComplementSum(frame.subarray(26, 34)) + 6 + segmentBytes);
  return ip === 0xffff && tcp === 0xffff;
}

describe('Ethernet frames', () => {
  const payload = Uint8Array.from({ length: 3001 }, (_, index) => index & 0xff);

  it('get the checksums that the driver left out', () => {
    const frame = tcpFrame(payload.subarray(0, 99));
    completeChecksums(frame, { l3: true, l4: true });
    assert.ok(isValid(frame));
    assert.equal(receiveChecksum(frame), onesComplementSum(frame.subarray(14)));
  });

  it('are cut into segments with lengths, numbers and flags of their own', () => {
    const parts = [...segment(tcpFrame(payload), HEADER_BYTES, 1400)];
    for (const part of parts) completeChecksums(part, { l3: true, l4: true });
    assert.ok(parts.every(isValid));
    const views = parts.map((part) => new DataView(part.buffer));
    assert.deepEqual(
      views.map((view) => view.getUint16(16)),
      [1440, 1440, 241],
    );
    assert.deepEqual(
      views.map((view) => view.getUint16(18)),
      [7, 8, 9],
      'IP identification',
    );
    assert.deepEqual(
      views.map((view) => view.getUint32(38)),
      [1000, 2400, 3800],
      'sequence numbers',
    );
    assert.deepEqual(
      parts.map((part) => part[47]),
      [0x10, 0x10, 0x19],
      'FIN and PSH only at the end',
    );
    assert.deepEqual(Buffer.concat(parts.map((part) => part.subarray(HEADER_BYTES))), Buffer.from(payload));
  });

  it('hash to the values that the Microsoft RSS specification gives', () => {
    const key = Buffer.from('6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa', 'hex');
    const frame = tcpFrame(new Uint8Array(0));
    const headers = parseFrame(frame);
    assert.equal(toeplitz(key, hashInput(frame, headers, false)), 0x323e8fc2);
    assert.equal(toeplitz(key, hashInput(frame, headers, true)), 0x51ccc178);
  });

  it('are laid out as steering matches them', () => {
    const frame = tcpFrame(new Uint8Array(0));
    const view = new DataView(matchValueOf(frame, parseFrame(frame)).buffer);
    assert.equal(fteMatchSetLyr24.get(view, 'dmac_47_16'), 0x02000000);
    assert.equal(fteMatchSetLyr24.get(view, 'dmac_15_0'), 1);
    assert.equal(fteMatchSetLyr24.get(view, 'ethertype'), 0x800);
    assert.equal(fteMatchSetLyr24.get(view, 'ip_version'), 4);
    assert.equal(fteMatchSetLyr24.get(view, 'tcp_dport'), 1766);
  });

  for (const [what, change] of [
    ['cut off in its IP header', (frame: Uint8Array) => frame.subarray(0, 20)],
    ['cut off in its TCP header', (frame: Uint8Array) => frame.subarray(0, 40)],
    [
      'with an IP header longer than itself',
      (frame: Uint8Array) => {
        frame[14] = 0x4f;
        return frame.subarray(0, 60);
      },
    ],
    [
      'with an IP length of 65535',
      (frame: Uint8Array) => {
        frame.fill(0xff, 16, 18);
        return frame;
      },
    ],
    [
      'with an IP length of 0',
      (frame: Uint8Array) => {
        frame.fill(0, 16, 18);
        return frame;
      },
    ],
  ] as const) {
    it(`survive one ${what}`, () => {
      const frame = change(tcpFrame(payload)).slice();
      completeChecksums(frame, { l3: true, l4: true });
      matchValueOf(frame, parseFrame(frame));
    });
  }
});
