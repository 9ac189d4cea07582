import assert from 'node:assert/strict';
import { PlugQueue } from './plug-queue.js';

const [gpu, gaudi] = ['0x1002:0x7af0', '0x1da3:0x1000'];
const functions = [gpu, gpu, gaudi, gpu, undefined].map((ids, index) => ({
  id: `f${index}`,
  ...(ids === undefined ? {} : { ids }),
}));

describe('PlugQueue', () => {
  it('lets one of each kind in at once, and the next when the guest has seen the one before', () => {
    const queue = new PlugQueue(functions);
    assert.deepEqual(queue.hear('read'), []);
    assert.deepEqual(queue.hear(`y\nseen ${gaudi}\n`), [0, 2, 4]);
    assert.deepEqual(queue.hear(`seen ${gpu}\n`), [1]);
    assert.deepEqual(queue.hear(`seen ${gpu}\nseen ${gpu}\n`), [3]);
  });

  it('has no place for what it does not know', () => {
    assert.deepEqual(new PlugQueue(functions).hear('seen 0x15b3:0x1021\nwhatever\n\n'), []);
    assert.deepEqual(new PlugQueue([]).hear('ready\n'), []);
  });
});
