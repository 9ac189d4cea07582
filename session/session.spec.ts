import assert from 'node:assert/strict';
import { routingOf } from './session.js';

describe('how a peer’s BAR is reached', () => {
  for (const [what, settings, routing] of [
    ['by address without an IOMMU', { viommu: false, topology: 'root-ports' }, 'address'],
    ['as the IOMMU has it where it sees all', { viommu: true, topology: 'root-ports' }, 'iommu'],
    ['as the IOMMU has it where ACS redirects to it', { viommu: true, topology: 'switch-acs' }, 'iommu'],
    ['by address inside a switch', { viommu: true, topology: 'switch' }, 'address'],
  ] as const) {
    it(what, () => {
      assert.equal(routingOf(settings), routing);
    });
  }
});
