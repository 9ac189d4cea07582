/**
 * The tables of docs/architecture.md as data: which folder may use which. The first column names folders (with a star
 * each folder for itself) and files, the last what they may use: folders of the table, names by which the package
 * exports itself (`ghostbus/kit`), packages of node_modules. The most exact path says where a file belongs.
 */
import type { Import, ImportGraph } from './imports.js';

export interface Floor {
  /** `emulator/host/`, `emulator/bus.ts`: as written. */
  readonly paths: readonly string[];
  readonly mayUse: readonly string[];
}

export interface Floors {
  readonly sources: readonly Floor[];
  /** What specs and kits may use besides: those of the first path that fits. */
  readonly specs: readonly Floor[];
}

export interface Violation {
  readonly from: string;
  readonly to: string;
  readonly reason: string;
}

/** @throws when the document has not exactly the two tables */
export function parseFloors(markdown: string): Floors {
  const [sources, ...rest] = tablesOf(markdown, 'may use');
  const [specs, ...more] = tablesOf(markdown, 'may also use');
  if (sources === undefined || specs === undefined || rest.length + more.length > 0) {
    throw new Error('docs/architecture.md needs one table with a column "may use" and one with "may also use"');
  }
  return { sources, specs };
}

/** Tables whose last column has this heading. */
function tablesOf(markdown: string, heading: string): Floor[][] {
  const tables = markdown.matchAll(/(?:^\|.*\|\n)+/gm);
  return [...tables].flatMap(([text]) => {
    const rows = text
      .trim()
      .split('\n')
      .map((line) =>
        line
          .split('|')
          .slice(1, -1)
          .map((cell) => cell.trim()),
      );
    if (rows[0]!.at(-1) !== heading) return [];
    return [rows.slice(2).map((cells) => ({ paths: namesIn(cells[0]!), mayUse: namesIn(cells.at(-1)!) }))];
  });
}

const namesIn = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name!);

/** True for specs, and for kits and fixtures of specs, which lie in a folder `test/`. */
export const isTest = (file: string): boolean => /(^|\/)test\/|\.spec\.ts$/.test(file);

/** The part of `file` that `path` of a table matches, if it does; with a star the one folder that it stood for. */
function match(path: string, file: string): string | undefined {
  const pattern = path
    .replaceAll('.', '\\.')
    .replaceAll('**', '.+')
    .replace(/(?<!\.)\*/g, '[^/]+');
  return new RegExp(path.endsWith('/') ? `^${pattern}` : `^${pattern}$`).exec(file)?.[0];
}

interface Place {
  readonly floor: Floor;
  /** What of the file's path said so. */
  readonly place: string;
  /** The path was written with a star: the folders of one floor are strangers. */
  readonly apart: boolean;
}

function placeOf(floors: readonly Floor[], file: string): Place | undefined {
  const places = floors.flatMap((floor) =>
    floor.paths.flatMap((path) => {
      const place = match(path, file);
      return place === undefined ? [] : [{ floor, place, apart: path.includes('*') }];
    }),
  );
  return places.sort((a, b) => b.place.length - a.place.length)[0];
}

/** Every import that the tables do not allow. */
export function violations(floors: Floors, graph: ImportGraph): readonly Violation[] {
  return [...graph].flatMap(([from, imports]) => {
    const own = placeOf(floors.sources, from);
    if (own === undefined && !isTest(from)) {
      return [{ from, to: '', reason: `no row of docs/architecture.md says where ${from} belongs: add one` }];
    }
    const allowed = [...(own?.floor.mayUse ?? []), ...(isTest(from) ? usableBySpecs(floors, from) : [])];
    return imports.flatMap((entry) => {
      const what = refused(floors, from, own, allowed, entry);
      if (what === undefined) return [];
      const may = allowed.length === 0 ? 'nothing' : allowed.join(', ');
      const reason = `${from} imports ${what}; ${own?.place ?? 'it'} may use ${may} (docs/architecture.md)`;
      return [{ from, to: 'file' in entry ? entry.file : entry.name, reason }];
    });
  });
}

const usableBySpecs = ({ specs }: Floors, file: string): readonly string[] =>
  specs.find(({ paths }) => paths.some((path) => match(path, file) !== undefined))?.mayUse ?? [];

/** What the file should not import, in words; undefined when it may. */
function refused(
  floors: Floors,
  from: string,
  own: Place | undefined,
  allowed: readonly string[],
  entry: Import,
): string | undefined {
  if (entry.kind === 'package') return allowed.includes(entry.name) ? undefined : `the package ${entry.name}`;
  if (isTest(entry.file) && !isTest(from)) return `${entry.file}, which is there for specs only`;
  if (allowed.includes('**') || allowed.includes(entry.specifier)) return undefined;
  const target = placeOf(floors.sources, entry.file);
  if (target === undefined) return isTest(from) && own === undefined ? undefined : entry.file;
  if (target.floor === own?.floor && !(own.apart && target.place !== own.place)) return undefined;
  return target.floor.paths.some((path) => allowed.includes(path)) ? undefined : `${entry.file} of ${target.place}`;
}
