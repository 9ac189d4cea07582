import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { renderAttachment, shellQuote } from './attach-formats.js';

const functions = [{ id: 'gpu0', socketPath: "/run/it's here/gpu0.sock" }];

/** What a shell makes of the text: one argument per line. */
function words(text: string): string[] {
  return execFileSync('sh', ['-c', `printf '%s\\n' ${text}`])
    .toString()
    .trimEnd()
    .split('\n');
}

describe('attach formats', () => {
  it('quotes words so that a shell gives them back', () => {
    for (const word of ['plain', 'two words', "it's", '$HOME', '{"a":"b"}', '']) {
      assert.deepEqual(words(shellQuote(word)), [word]);
    }
  });

  it('gives QEMU shared guest memory and each function its socket', () => {
    const args = words(renderAttachment('qemu', functions, { memMiB: 512 }));
    assert.ok(args.includes('memory-backend-memfd,id=ram,size=512M,share=on'));
    const device = JSON.parse(args.find((arg) => arg.includes('vfio-user-pci')) ?? '{}');
    assert.deepEqual(device, {
      driver: 'vfio-user-pci',
      id: 'gpu0',
      bus: 'port0',
      socket: { type: 'unix', path: functions[0]!.socketPath },
    });
  });

  it('says which kernel arguments the topology needs', () => {
    const text = renderAttachment('qemu', functions, { topology: 'switch-acs' });
    assert.match(text, /# Add to the guest kernel's command line: pci=config_acs=/);
  });

  it('escapes for XML', () => {
    const text = renderAttachment('libvirt', functions);
    assert.match(text, /it&apos;s here/);
    assert.match(text, /<access mode='shared'\/>/);
  });

  it('survives the second shell that vng uses', () => {
    const [option] = words(renderAttachment('vng', functions)).slice(-1);
    const args = words(option!.slice('--qemu-opts='.length));
    const device = JSON.parse(args.find((arg) => arg.includes('vfio-user-pci')) ?? '{}');
    assert.equal(device.socket.path, functions[0]!.socketPath);
  });

  it('gives programs the same facts', () => {
    const facts = JSON.parse(renderAttachment('json', functions, { viommu: true }));
    assert.equal(facts.devices[0].driver, 'intel-iommu');
    assert.deepEqual(facts.kernelArgs, ['intel_iommu=on']);
    assert.deepEqual(facts.functions, functions);
  });
});
