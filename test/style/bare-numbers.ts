/** Numbers in the middle of the sources' code that should have a name. */
import { join, relative } from 'node:path';
import { type Node, SyntaxKind } from 'typescript/unstable/ast';
import { API } from 'typescript/unstable/sync';
import { isTest } from '../architecture/floors.js';

/** Smaller ones are counts, widths, shifts and the like, and are read at a glance. */
const SMALLEST = 256;
/** A number below one of these has a name, or is one of a table's. */
const NAMED = new Set([
  SyntaxKind.PropertyDeclaration,
  SyntaxKind.PropertyAssignment,
  SyntaxKind.EnumMember,
  SyntaxKind.Parameter,
  SyntaxKind.LiteralType,
]);

/** `FILE:LINE NUMBER` of each. Masks (ones in a row), powers of two, thousands and file modes speak for themselves. */
export function bareNumbers(folder: string): string[] {
  const api = new API({ cwd: folder });
  try {
    const configuration = join(folder, 'tsconfig.json');
    const { program, rootFiles } = api.updateSnapshot({ openProjects: [configuration] }).getProject(configuration)!;
    return rootFiles.flatMap((path) => {
      const file = relative(folder, path);
      if (isTest(file) || file.startsWith('conformance/')) return [];
      const source = program.getSourceFile(path)!;
      return bareIn(source).map((node) => {
        const line = source.text.slice(0, node.getStart()).split('\n').length;
        return `${file}:${line} ${node.getText()}`;
      });
    });
  } finally {
    api.close();
  }
}

function bareIn(node: Node): Node[] {
  if (NAMED.has(node.kind) || isConstant(node)) return [];
  if (node.kind === SyntaxKind.NumericLiteral || node.kind === SyntaxKind.BigIntLiteral) {
    return isPlain(node.getText()) ? [] : [node];
  }
  const found: Node[] = [];
  node.forEachChild((child) => {
    found.push(...bareIn(child));
  });
  return found;
}

/** A constant of the whole file, or a local name for one number. */
const isConstant = (node: Node): boolean =>
  node.kind === SyntaxKind.VariableStatement
    ? node.parent?.kind === SyntaxKind.SourceFile
    : node.kind === SyntaxKind.VariableDeclaration && /= [\dA-Fa-fx_]+n?$/.test(node.getText());

function isPlain(text: string): boolean {
  const digits = text.replaceAll('_', '').replace(/n$/, '');
  if (!/^(0x[0-9a-f]+|0b[01]+|\d+)$/i.test(digits)) return true;
  const value = BigInt(digits);
  return value < SMALLEST || value % 1000n === 0n || isRowOfOnes(value);
}

function isRowOfOnes(value: bigint): boolean {
  let ones = value;
  while (ones !== 0n && (ones & 1n) === 0n) ones >>= 1n;
  return (ones & (ones + 1n)) === 0n;
}
