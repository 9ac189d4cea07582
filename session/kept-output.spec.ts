import assert from 'node:assert/strict';
import { KeptOutput, type StreamName } from './kept-output.js';

function kept(...pieces: [StreamName, string][]): KeptOutput {
  const output = new KeptOutput();
  for (const [stream, text] of pieces) output.add(stream, Buffer.from(text));
  return output;
}

describe('kept output', () => {
  it('is each stream by itself, a character that came in two pieces included', () => {
    const output = new KeptOutput();
    const [first, ...rest] = Buffer.from('é\n');
    output.add('stdout', Buffer.of(first!));
    output.add('stderr', Buffer.from('err'));
    output.add('stdout', Buffer.from(rest));
    assert.deepEqual([output.text('stdout'), output.text('stderr'), output.truncated], ['é\n', 'err', false]);
  });

  const rows: { title: string; pieces: [StreamName, string][]; lines: string }[] = [
    { title: 'nothing', pieces: [], lines: '' },
    {
      title: 'in the order in which the lines were ended',
      pieces: [
        ['stdout', 'one\ntw'],
        ['stderr', 'warning\n'],
        ['stdout', 'o\nthree\n'],
      ],
      lines: 'one\nwarning\ntwo\nthree\n',
    },
    {
      title: 'with an end for lines that have none',
      pieces: [
        ['stderr', 'cut o'],
        ['stdout', 'a\nb'],
        ['stderr', 'ff'],
      ],
      lines: 'a\nb\ncut off\n',
    },
    { title: 'with empty lines', pieces: [['stdout', '\n\na\n\n']], lines: '\n\na\n\n' },
  ];
  for (const { title, pieces, lines } of rows) {
    it(`is both by whole lines: ${title}`, () =>
      assert.equal(
        kept(...pieces)
          .lines()
          .toString(),
        lines,
      ));
  }

  it('ends after 16 MiB of a stream, whose other has as much room', () => {
    const output = new KeptOutput();
    const limitBytes = 16 * 2 ** 20;
    output.add('stdout', Buffer.alloc(limitBytes, 'x'));
    assert.equal(output.truncated, false);
    output.add('stdout', Buffer.from('y'));
    output.add('stderr', Buffer.from('z'));
    assert.equal(output.truncated, true);
    assert.equal(output.text('stdout').length, limitBytes);
    assert.equal(output.text('stderr'), 'z');
  });
});
