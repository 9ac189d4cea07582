import assert from 'node:assert/strict';
import { routingOf } from './session.js';

describe('how a peer’s BAR is reached', () => {
  for (const [what, settings, routing] of [
    ['by address without an IOMMU', { viommu: false, topology: 'root-ports' }, 'address'],
    ['as QEMU maps it where an IOMMU translates', { viommu: true, topology: 'root-ports' }, 'mapped'],
    ['as QEMU maps it where ACS redirects to an IOMMU', { viommu: true, topology: 'switch-acs' }, 'mapped'],
    ['by address inside a switch', { viommu: true, topology: 'switch' }, 'address'],
    ['by address with iommu=pt', { viommu: true, topology: 'root-ports', kernelArgs: ['iommu=pt'] }, 'address'],
  ] as const) {
    it(what, () => {
      assert.equal(routingOf(settings), routing);
    });
  }
});
