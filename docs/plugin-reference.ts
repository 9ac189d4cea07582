/**
 * Makes docs/plugin-api.md: what the package's public names export, with the comments that stand
 * in the sources. It reads the declarations that the build writes, so bodies and private members
 * are not in it. `npm run docs` writes the page.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Node, SyntaxKind } from 'typescript/unstable/ast';
import { API, type Project } from 'typescript/unstable/sync';

const root = fileURLToPath(new URL('../..', import.meta.url));
export const PLUGIN_REFERENCE = join(root, 'docs/plugin-api.md');

const HEAD = `# Plugin API

What \`ghostbus\` and its other public names export. Made from the sources by \`npm run docs\`; a spec fails when it is stale. For a way
through it see the [tutorial](../plugins/example/README.md).
`;

interface Entry {
  readonly name: string;
  readonly comment: string;
  readonly declaration: string;
}

/** Public names of package.json by the declaration file behind each. */
function publicFaces(): [string, string][] {
  const { name, exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    readonly name: string;
    readonly exports: Readonly<Record<string, { readonly types: string } | string>>;
  };
  return Object.entries(exports).flatMap(([face, target]) =>
    typeof target === 'string' ? [] : [[`${name}${face.slice(1)}`, resolve(root, target.types)] as [string, string]],
  );
}

export function renderPluginReference(): string {
  const faces = publicFaces();
  return withProject(
    faces.map(([, file]) => file),
    (project) => {
      const known = new Map<string, string>();
      return [HEAD, ...faces.map(([name, file]) => renderFace(name, entriesOf(project, file), known))].join('\n');
    },
  );
}

function withProject<T>(files: readonly string[], use: (project: Project) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'ghostbus-reference-'));
  const configuration = join(folder, 'tsconfig.json');
  const compilerOptions = { module: 'nodenext', target: 'es2023', skipLibCheck: true, types: [] };
  writeFileSync(configuration, JSON.stringify({ compilerOptions, files }));
  const api = new API({ cwd: folder });
  try {
    return use(api.updateSnapshot({ openProjects: [configuration] }).getProject(configuration)!);
  } finally {
    api.close();
    rmSync(folder, { recursive: true });
  }
}

function entriesOf(project: Project, file: string): Entry[] {
  const { checker, program } = project;
  const module = checker.getSymbolAtLocation(program.getSourceFile(file)!);
  if (module === undefined) throw new Error(`${file} exports nothing`);
  return checker.getExportsOfModule(module).map((exported) => {
    const symbol = exported.declarations.some(({ kind }) => kind === SyntaxKind.ExportSpecifier)
      ? checker.getAliasedSymbol(exported)
      : exported;
    const nodes = symbol.declarations.map((declaration) => statementOf(declaration.resolve(project)!));
    return {
      name: exported.name,
      comment: symbol.getDocumentationComment(checker),
      declaration: [...new Set(nodes.map((node) => node.getText()))].map(tidy).join('\n'),
    };
  });
}

/** The whole statement of a variable, which is declared two levels below it. */
function statementOf(node: Node): Node {
  if (node.kind === SyntaxKind.SourceFile) return node;
  return node.kind === SyntaxKind.VariableDeclaration ? node.parent!.parent! : node;
}

const tidy = (text: string): string =>
  text
    .replace(/^export (declare )?/, '')
    .replace(/^ {4}#private;\n/gm, '')
    .replace(/^( {4})+/gm, (indent) => ' '.repeat(indent.length / 2));

function renderFace(name: string, entries: readonly Entry[], known: Map<string, string>): string {
  const own = entries.filter((entry) => known.get(entry.name) !== entry.declaration);
  for (const { name: symbol, declaration } of own) known.set(symbol, declaration);
  const sorted = own.toSorted((a, b) => (a.name.toLowerCase() < b.name.toLowerCase() ? -1 : 1));
  return [`## \`${name}\`\n`, ...sorted.map(renderEntry)].join('\n');
}

function renderEntry({ name, comment, declaration }: Entry): string {
  const prose = comment.replace(/\{@link ([^}]+)\}/g, '`$1`').trim();
  return `### ${name}\n\n${prose === '' ? '' : `${prose}\n\n`}\`\`\`ts\n${declaration}\n\`\`\`\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(PLUGIN_REFERENCE, renderPluginReference());
