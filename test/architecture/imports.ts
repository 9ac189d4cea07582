/**
 * Which file of a TypeScript project imports what, as the compiler's own parser sees it: imports of values and of
 * types, re-exports, `import('…')` as a call and as a type.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { isStringLiteral } from 'typescript/unstable/ast/is';
import { API } from 'typescript/unstable/sync';

/** One module specifier of one file. */
export type Import =
  /** A package of node_modules; `name` without a path inside it. */
  | { readonly kind: 'package'; readonly specifier: string; readonly name: string }
  /** A file of the project: by a relative path, or by the package's own name (`ghostbus/kit`). */
  | { readonly kind: 'relative' | 'self'; readonly specifier: string; readonly file: string };

/** Files of the project by their path from its folder on. What Node.js brings along (`node:fs`) is left out. */
export type ImportGraph = ReadonlyMap<string, readonly Import[]>;

interface PackageJson {
  readonly name: string;
  readonly exports?: Readonly<Record<string, { readonly types: string }>>;
}

/** Reads the project of `folder` (its tsconfig.json and package.json). */
export function readImports(folder: string): ImportGraph {
  const packageJson = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as PackageJson;
  const api = new API({ cwd: folder });
  try {
    const configuration = join(folder, 'tsconfig.json');
    const project = api.updateSnapshot({ openProjects: [configuration] }).getProject(configuration);
    if (project === undefined) throw new Error(`the TypeScript compiler does not read ${configuration}`);
    const graph = new Map<string, Import[]>();
    for (const path of project.rootFiles) {
      const from = relative(folder, path);
      const { imports } = project.program.getSourceFile(path)!;
      const specifiers = imports
        .flatMap((node) => (isStringLiteral(node) ? [node.text] : []))
        .filter((text) => !text.startsWith('node:'));
      graph.set(
        from,
        specifiers.map((specifier) => resolve(folder, packageJson, from, specifier)),
      );
    }
    return graph;
  } finally {
    api.close();
  }
}

function resolve(folder: string, { name, exports = {} }: PackageJson, from: string, specifier: string): Import {
  if (specifier.startsWith('.')) {
    return { kind: 'relative', specifier, file: sourceOf(folder, from, join(dirname(from), specifier)) };
  }
  if (specifier === name || specifier.startsWith(`${name}/`)) {
    const face = exports[`.${specifier.slice(name.length)}`];
    if (face === undefined) throw new Error(`${from} imports ${specifier}, which package.json does not export`);
    const built = face.types.replace(/^\.\/dist\//, '').replace(/\.d\.ts$/, '.js');
    return { kind: 'self', specifier, file: sourceOf(folder, from, built) };
  }
  const parts = specifier.split('/');
  return { kind: 'package', specifier, name: parts.slice(0, specifier.startsWith('@') ? 2 : 1).join('/') };
}

function sourceOf(folder: string, from: string, path: string): string {
  const source = path.replace(/\.js$/, '.ts');
  if (!existsSync(join(folder, source))) throw new Error(`${from} imports ${path}, but there is no ${source}`);
  return source;
}
