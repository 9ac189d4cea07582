import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { formatQemuArguments, qemuArguments, type ServedMachine, shellQuote } from './qemu-arguments.js';

function served(more: Partial<ServedMachine['machine']> = {}): ServedMachine {
  const identity = { vendorId: 1, deviceId: 2, subsystemVendorId: 3, subsystemId: 4, classCode: 5, revisionId: 6 };
  return {
    functions: [
      { name: 'gpu0', plugin: 'gpu', identity, socketPath: "/run/it's, here/gpu0.sock" },
      { name: 'rdma0', plugin: 'rdma', identity, socketPath: '/run/rdma0.sock' },
    ],
    machine: { topology: 'root-ports', viommu: false, memMiB: 1024, ...more },
    controlSocketPath: '/run/control.sock',
    guestFilePaths: ['/lib/firmware/stub.bin'],
  };
}

/** What a shell makes of a text. */
function words(text: string): string[] {
  const { stdout, status } = spawnSync('bash', ['-c', `printf '%s\\0' ${text}`], { encoding: 'utf8' });
  assert.equal(status, 0);
  return stdout.split('\0').slice(0, -1);
}

describe('arguments for a QEMU of the user', () => {
  it('share guest memory and attach each function below its port, without the port kept for hot-plug', () => {
    const { memory, devices } = qemuArguments(served());
    assert.ok(memory.join(' ').includes('share=on'));
    const parsed = devices.filter((_, index) => index % 2 === 1).map((text) => JSON.parse(text));
    assert.deepEqual(
      parsed.map(({ driver }) => driver),
      ['pcie-root-port', 'pcie-root-port', 'vfio-user-pci', 'vfio-user-pci'],
    );
    assert.equal(parsed[2].id, 'gpu0');
    assert.deepEqual(parsed[2].socket, { type: 'unix', path: "/run/it's, here/gpu0.sock" });
    assert.equal(parsed[2].bus, parsed[0].id);
  });

  it('survive a shell, whatever is in a path', () => {
    for (const word of ['plain', 'two words', "it's", '$HOME', '"', '\\', '']) {
      assert.deepEqual(words(shellQuote(word)), [word]);
    }
    const { machine, memory, devices } = qemuArguments(served());
    const text = formatQemuArguments(served(), 'qemu');
    assert.deepEqual(words(text.trim()), [...machine, ...memory, ...devices]);
  });

  it('for vng survive two shells', () => {
    const [program, ...args] = words(formatQemuArguments(served(), 'vng').trim());
    assert.equal(program, 'vng');
    const inner = args.find((word) => word.startsWith('--qemu-opts='))!.slice('--qemu-opts='.length);
    const device = words(inner).find((word) => word.includes('gpu0.sock'))!;
    assert.equal(JSON.parse(device).socket.path, "/run/it's, here/gpu0.sock");
    assert.equal(words(inner).includes('-m'), false);
  });

  it('for libvirt are well-formed and hold the JSON unharmed', () => {
    const text = formatQemuArguments(served(), 'libvirt');
    const values = [...text.matchAll(/<qemu:arg value='([^']*)'\/>/g)].map(([, value]) => value!);
    const device = values.find((value) => value.includes('gpu0.sock'))!;
    assert.match(device, /it&apos;s, here/);
    assert.match(text, /<access mode='shared'\/>/);
    assert.match(text, /<memory unit='MiB'>1024<\/memory>/);
  });

  it('as JSON hold everything', () => {
    const parsed = JSON.parse(formatQemuArguments(served(), 'json'));
    assert.equal(parsed.functions[0].name, 'gpu0');
    assert.equal(parsed.controlSocketPath, '/run/control.sock');
    assert.deepEqual(parsed.guestFilePaths, ['/lib/firmware/stub.bin']);
    assert.ok(parsed.qemuArguments.includes('-object'));
  });

  it('tell what the kernel needs for a topology', () => {
    for (const format of ['qemu', 'libvirt', 'vng', 'json'] as const) {
      assert.match(formatQemuArguments(served({ topology: 'switch-acs' }), format), /pci=config_acs=/, format);
      assert.match(formatQemuArguments(served({ viommu: true }), format), /intel_iommu=on/, format);
    }
  });
});
