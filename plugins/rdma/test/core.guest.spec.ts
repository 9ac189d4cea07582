/** rdma-core's own tests against the adapter, as Debian's python3-pyverbs brings them. */
import assert from 'node:assert/strict';
import { assertCleanKernelLog, KERNELS, sh, withMachine } from 'ghostbus/session';
import { driverReady, GUEST_SCRIPTS, portsActive, RDMA_GUEST, rdmaDeviceNames, untilTrue } from './guest-kit.js';

const MODULES = [
  'test_device',
  'test_pd',
  'test_mr',
  'test_cq',
  'test_cqex',
  'test_cq_events',
  'test_qp',
  'test_addr',
  'test_atomic',
  'test_srq',
  'test_odp',
  'test_shared_pd',
  'test_parent_domain',
  'test_relaxed_ordering',
  'test_fork',
  'test_rdmacm',
];
/** More than three quarters of what rdma-core 56 has in these modules: a list that came out empty must not pass. */
const LEAST_CASES = 120;

/** Every case that may be skipped, with the reason that the test itself gives, and why that is right here. */
const SKIPPED: readonly { readonly cases: RegExp; readonly says: RegExp; readonly because: string }[] = [
  {
    cases: /SrqTestCase\.test_resize_srq/,
    says: /SRQ resize is not supported/,
    because: 'mlx5_ib_modify_srq refuses IB_SRQ_MAX_WR, on every adapter',
  },
  {
    cases: /QPTest\.test_(create|query)_/,
    says: /QP with(out)?( extended)? attrs is not supported/,
    because: 'the flags that the test draws may need offloads of raw packets or of IPoIB, which are not offered',
  },
];

interface Outcome {
  readonly case: string;
  readonly outcome: 'passed' | 'skipped' | 'failed' | 'crashed' | 'hung';
  readonly reason: string;
}

function isExpected({ case: name, outcome, reason }: Outcome): boolean {
  if (outcome === 'passed') return true;
  return outcome === 'skipped' && SKIPPED.some(({ cases, says }) => cases.test(name) && says.test(reason));
}

describe("rdma: rdma-core's own tests", () => {
  for (const kernel of KERNELS) {
    it(`${kernel}: every case passes, or is skipped for a reason that is listed`, async () => {
      await withMachine({ kernel, devices: ['gpu', 'rdma'], ...RDMA_GUEST }, async ({ boot }) => {
        const guest = await boot({ shareDir: GUEST_SCRIPTS });
        await driverReady(guest, 1);
        await portsActive(guest, 1);
        await sh(
          guest,
          `modprobe amdgpu; ${untilTrue('[ -e /dev/dri/renderD128 ]')}
             ip addr add 10.0.0.1/24 dev $(basename /sys/bus/pci/drivers/mlx5_core/*/net/*)
             echo 8 >/proc/sys/vm/nr_hugepages`,
        );
        const [device] = await rdmaDeviceNames(guest);
        const text = await sh(guest, `python3 -B /mnt/share/rdma-core-tests.py ${device} ${MODULES.join(' ')}`);
        const outcomes = text
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line) as Outcome);
        assert.deepEqual(
          outcomes.filter((outcome) => !isExpected(outcome)),
          [],
        );
        const skipped = outcomes.filter(({ outcome }) => outcome === 'skipped').map((outcome) => outcome.case);
        console.error(`    … ${outcomes.length - skipped.length} cases passed; skipped: ${skipped.join(', ')}`);
        assert.ok(outcomes.length - skipped.length >= LEAST_CASES, text);
        await assertCleanKernelLog(guest);
      });
    });
  }
});
