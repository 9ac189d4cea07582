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
import {
  API,
  type Symbol as CheckedSymbol,
  type Checker,
  type NodeHandle,
  type Project,
  SymbolFlags,
} from 'typescript/unstable/sync';

const root = fileURLToPath(new URL('../..', import.meta.url));
export const PLUGIN_REFERENCE = join(root, 'docs/plugin-api.md');

const HEAD = `# Plugin API

What \`ghostbus\` and its other public names export. Made from the sources by \`npm run docs\`; a spec fails when it is stale. For a way
through it see the [tutorial](../plugins/example/README.md).
`;

const NAMED_TITLE = 'Types that these name';
const NAMED_HEAD = `
No program imports them: declarations above mention them, and values have them.
`;

/** The declarations that the build writes. */
const BUILT = join(root, 'dist/');
const TYPES: ReadonlySet<SyntaxKind> = new Set([
  SyntaxKind.InterfaceDeclaration,
  SyntaxKind.TypeAliasDeclaration,
  SyntaxKind.ClassDeclaration,
]);

/** A constructor that nobody outside calls, as its comment says. */
const INTERNAL = /^ *\/\*\*(?:(?!\*\/)[\s\S])*@internal(?:(?!\*\/)[\s\S])*\*\/\n *constructor\(.*\);\n/m;

/** The compiler leaves the asterisk of the second line in a link that is broken over two. */
const BROKEN_LINK = / \* (?=[A-Za-z])/g;

const TYPE_NAME = /^[A-Z]/;

interface PublicSymbol {
  readonly name: string;
  readonly symbol: CheckedSymbol;
}

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
      const exported = faces.map(([name, file]) => [name, exportsOf(project, file)] as const);
      const named = namedBy(
        project,
        exported.flatMap(([, symbols]) => symbols.map(({ symbol }) => symbol)),
      );
      return [
        HEAD,
        ...exported.map(([name, symbols]) => renderFace(`\`${name}\``, symbols.map(entryOf(project)), known)),
        renderFace(NAMED_TITLE, named.map(entryOf(project)), known, NAMED_HEAD),
      ].join('\n');
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

function exportsOf(project: Project, file: string): PublicSymbol[] {
  const { checker, program } = project;
  const module = checker.getSymbolAtLocation(program.getSourceFile(file)!);
  if (module === undefined) throw new Error(`${file} exports nothing`);
  return checker
    .getExportsOfModule(module)
    .map((symbol) => ({ name: symbol.name, symbol: unaliased(checker, symbol) }));
}

const unaliased = (checker: Checker, symbol: CheckedSymbol): CheckedSymbol =>
  (symbol.flags & SymbolFlags.Alias) === 0 ? symbol : checker.getAliasedSymbol(symbol);

const entryOf =
  (project: Project) =>
  ({ name, symbol }: PublicSymbol): Entry => {
    const nodes = nodesOf(project, symbol);
    return {
      name,
      comment: symbol.getDocumentationComment(project.checker).replace(BROKEN_LINK, ' '),
      declaration: isModule(symbol)
        ? namespaceOf(project, name, symbol)
        : [...new Set(nodes.map((node) => node.getText()))].map(tidy).join('\n'),
    };
  };

/** A module that another one exports as a whole. */
function namespaceOf(project: Project, name: string, module: CheckedSymbol): string {
  const members = project.checker.getExportsOfModule(module).map((member) => {
    const { declaration } = entryOf(project)({ name: member.name, symbol: unaliased(project.checker, member) });
    return declaration.replace(/^/gm, '  ');
  });
  return `namespace ${name} {\n${members.join('\n')}\n}`;
}

const isModule = ({ declarations }: CheckedSymbol): boolean =>
  declarations.some(({ kind }) => kind === SyntaxKind.SourceFile);

const nodesOf = (project: Project, symbol: CheckedSymbol): Node[] =>
  symbol.declarations.map((declaration) => statementOf(declaration.resolve(project)!));

/** What the declarations of public names mention, and what those mention, without being exported itself. */
function namedBy(project: Project, exported: readonly CheckedSymbol[]): PublicSymbol[] {
  const { checker } = project;
  const listed = exported.flatMap((symbol) => [
    symbol,
    ...(isModule(symbol) ? checker.getExportsOfModule(symbol) : []),
  ]);
  const seen = new Set(listed.map(({ id }) => id));
  const found: PublicSymbol[] = [];
  const visit = (node: Node): void => {
    if (node.kind === SyntaxKind.Constructor && node.getFullText().includes('@internal')) return;
    if (node.kind === SyntaxKind.Identifier && TYPE_NAME.test(node.getText())) note(node);
    node.forEachChild(visit);
  };
  const noted = new Set<string>();
  const note = (identifier: Node): void => {
    // One question to the compiler for each name in a file: they are slow, and a name means one type there.
    const place = `${identifier.getSourceFile().fileName} ${identifier.getText()}`;
    if (noted.has(place)) return;
    noted.add(place);
    const mentioned = checker.getSymbolAtLocation(identifier);
    if (mentioned === undefined) return;
    const symbol = unaliased(checker, mentioned);
    if (seen.has(symbol.id) || !symbol.declarations.some(isOurs)) return;
    seen.add(symbol.id);
    found.push({ name: symbol.name, symbol });
    nodesOf(project, symbol).forEach(visit);
  };
  for (const symbol of exported) nodesOf(project, symbol).forEach(visit);
  return found;
}

/** Whether the build wrote it, and it is a type that stands by itself. */
const isOurs = ({ kind, path }: NodeHandle): boolean =>
  TYPES.has(kind) && path.toLowerCase().startsWith(BUILT.toLowerCase());

/** The whole statement of a variable, which is declared two levels below it. */
function statementOf(node: Node): Node {
  if (node.kind === SyntaxKind.SourceFile) return node;
  return node.kind === SyntaxKind.VariableDeclaration ? node.parent!.parent! : node;
}

const tidy = (text: string): string =>
  text
    .replace(/^export (declare )?/, '')
    .replace(/^ {4}#private;\n/gm, '')
    .replace(INTERNAL, '')
    .replace(/^( {4})+/gm, (indent) => ' '.repeat(indent.length / 2));

function renderFace(title: string, entries: readonly Entry[], known: Map<string, string>, head = ''): string {
  const own = entries.filter((entry) => known.get(entry.name) !== entry.declaration);
  for (const { name: symbol, declaration } of own) known.set(symbol, declaration);
  const sorted = own.toSorted((a, b) => (a.name.toLowerCase() < b.name.toLowerCase() ? -1 : 1));
  return [`## ${title}\n${head}`, ...sorted.map(renderEntry)].join('\n');
}

function renderEntry({ name, comment, declaration }: Entry): string {
  const prose = comment.replace(/\{@link ([^}]+)\}/g, '`$1`').trim();
  return `### ${name}\n\n${prose === '' ? '' : `${prose}\n\n`}\`\`\`ts\n${declaration}\n\`\`\`\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(PLUGIN_REFERENCE, renderPluginReference());
