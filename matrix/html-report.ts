/** The matrix as one HTML page that needs nothing else. */
import type { MatrixRun } from './run.js';
import { type KernelTable, type Square, sumsOf, tablesOf } from './summary.js';

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1em 0 2em; font-size: 13px; }
th, td { border: 1px solid #ccc; padding: .35em .6em; text-align: left; vertical-align: top; }
thead th { background: #f2f2f2; }
.p2p { background: #c9efce; } .staged { background: #fdf0c0; } .refused { background: #cfe6f7; }
.not-applicable { color: #888; } .failed { background: #f7b9b5; font-weight: bold; }
details { font-size: 85%; } summary { cursor: pointer; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #1b1b1b; } thead th { background: #2a2a2a; } th, td { border-color: #444; }
  .p2p { background: #1d4d26; } .staged { background: #5a4a10; }
  .refused { background: #17415e; } .failed { background: #6e1d18; }
}`;

const LEGEND: readonly (readonly [Square['kind'], string])[] = [
  ['p2p', 'P2P: exactly the moved bytes went from function to function, none through guest memory'],
  ['staged', 'staged: the bytes lie in guest memory, none went from function to function'],
  ['refused', 'refused, with the errno that the kernel’s source says'],
  ['not-applicable', 'not applicable, with the reason'],
  ['failed', 'not what the kernel’s source says'],
];

export function renderHtml(run: MatrixRun): string {
  const legend = LEGEND.map(
    ([kind, text]) => `<li><span class="${kind}">&nbsp;&nbsp;&nbsp;</span> ${escapeHtml(text)}</li>`,
  );
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>dma-buf matrix</title>
<style>${STYLE}</style>
<h1>dma-buf matrix</h1>
<p>Every exporter to every importer, with the kernels’ stock drivers. ${escapeHtml(sumsOf(run))}.</p>
<ul>${legend.join('')}</ul>
${tablesOf(run).map(renderKernel).join('\n')}
</html>
`;
}

function renderKernel({ kernel, release, topologies, rows, absent }: KernelTable): string {
  const head = ['exporter', 'importer', ...topologies.map(({ title }) => title)];
  const body = rows.map(({ exporter, importer, squares }) => {
    const cells = topologies.map(({ name }) => renderSquare(squares.get(name)));
    return `<tr><th>${escapeHtml(exporter.title)}</th><th>${escapeHtml(importer.title)}</th>${cells.join('')}</tr>`;
  });
  return `<h2>kernel ${escapeHtml(kernel)} <small>${escapeHtml(release ?? '')}</small></h2>
<table><thead><tr>${head.map((title) => `<th>${escapeHtml(title)}</th>`).join('')}</tr></thead>
<tbody>${body.join('\n')}</tbody></table>${absent.map((text) => `<p>Not in it: ${escapeHtml(text)}.</p>`).join('')}`;
}

function renderSquare(square: Square | undefined): string {
  if (square === undefined) return '<td></td>';
  const { because } = square.results[0]!.expectation;
  const lines = square.results.map(({ cell, outcome, problems }) =>
    escapeHtml([`${cell.size.name}: ${outcome}`, ...problems].join(' – ')),
  );
  const details = [escapeHtml(because), ...lines].join('<br>');
  const why = `<details><summary>why</summary>${details}</details>`;
  return `<td class="${square.kind}">${escapeHtml(square.text)}${why}</td>`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
