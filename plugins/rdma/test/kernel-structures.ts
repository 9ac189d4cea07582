/** Reads the structures of the kernel's `mlx5_ifc.h`: where each member is, in bits. */

/** Bit offset from the start of the structure, and width in bits. */
type Place = readonly [bit: number, width: number];

export interface Structure {
  readonly places: ReadonlyMap<string, Place>;
  /** Undefined when a member's size is not known: an array of a size that is a constant of another header. */
  readonly sizeBits: number | undefined;
}

const DEFINITION = /^(struct|union) (mlx5_ifc_\w+) \{$/;
const shortName = (type: string): string => type.replace(/^mlx5_ifc_/, '').replace(/_bits$/, '');
const MEMBER = /^(?:u8|(?:struct|union)\s+(\w+))\s+(\w+)((?:\[\w*\])*);$/;
/** include/linux/stddef.h: the last member, of any length. */
const FLEXIBLE_ARRAY = /DECLARE_FLEX_ARRAY\(([\w ]+), (\w+)\)/g;
const NESTED = /^(struct|union) \{$/;
const NESTED_END = /^\}\s*(\w*)((?:\[\w*\])*);$/;

/** A structure as far as it is read. */
interface Level {
  readonly isUnion: boolean;
  readonly places: Map<string, Place>;
  offset: number | undefined;
  largest: number;
}

/** Structures by name, `qpc` for `struct mlx5_ifc_qpc_bits`. A structure may be used before it is defined. */
export function parseStructures(text: string): ReadonlyMap<string, Structure> {
  const definitions = definitionsIn(text);
  const parsed = new Map<string, Structure>();

  function structure(name: string): Structure | undefined {
    const known = parsed.get(name);
    if (known !== undefined) return known;
    const definition = definitions.get(name);
    if (definition === undefined) return undefined;
    const result = parseBody(definition, (type) => structure(shortName(type))?.sizeBits);
    parsed.set(name, result);
    return result;
  }

  for (const name of definitions.keys()) structure(name);
  return parsed;
}

interface Definition {
  readonly isUnion: boolean;
  /** Members, and the beginnings and ends of structures inside. */
  readonly statements: readonly string[];
}

function definitionsIn(text: string): Map<string, Definition> {
  const definitions = new Map<string, Definition>();
  const lines = text
    .replaceAll(/\/\*.*?\*\//gs, '')
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '');
  for (let at = 0; at < lines.length; at++) {
    const [, kind, name] = DEFINITION.exec(lines[at]!) ?? [];
    if (name === undefined) continue;
    const start = at + 1;
    // Inner structures end the same way, but indented.
    while (lines[at] !== '};') at++;
    const body = lines.slice(start, at).join(' ').replaceAll(/\s+/g, ' ').replaceAll(FLEXIBLE_ARRAY, '$1 $2[]');
    definitions.set(shortName(name), { isUnion: kind === 'union', statements: statementsIn(body) });
  }
  return definitions;
}

const statementsIn = (body: string): string[] => (body.match(/[^;{]+[;{]/g) ?? []).map((text) => text.trim());

function parseBody({ isUnion, statements }: Definition, sizeOf: (name: string) => number | undefined): Structure {
  const levels: Level[] = [newLevel(isUnion)];
  for (const statement of statements) {
    const member = MEMBER.exec(statement);
    const nested = NESTED.exec(statement);
    const end = NESTED_END.exec(statement);
    if (nested !== null) levels.push(newLevel(nested[1] === 'union'));
    else if (member !== null) {
      const [, type, name, dimensions] = member;
      add(levels.at(-1)!, name!, (type === undefined ? 1 : sizeOf(type)) ?? Number.NaN, dimensions!);
    } else if (end !== null) addNested(levels, end[1]!, end[2]!);
    else throw new Error(`this is no member of a structure: ${statement}`);
  }
  const { places } = levels[0]!;
  return { places, sizeBits: sizeOfLevel(levels[0]!) };
}

const newLevel = (isUnion: boolean): Level => ({ isUnion, places: new Map(), offset: 0, largest: 0 });

const sizeOfLevel = ({ isUnion, largest, offset }: Level): number | undefined => (isUnion ? largest : offset);

/** `unit` is NaN when the size of the member's type is not known: nothing behind it has a place then. */
function add(level: Level, name: string, unit: number, dimensions: string): void {
  const factors = [...dimensions.matchAll(/\[(\w*)\]/g)].map(([, size]) => Number(size || 0));
  const width = factors.reduce((product, factor) => product * factor, unit);
  if (level.offset === undefined) return;
  level.places.set(name, [level.offset, Number.isNaN(width) ? 0 : width]);
  if (level.isUnion) level.largest = Math.max(level.largest, Number.isNaN(width) ? 0 : width);
  else level.offset = Number.isNaN(width) ? undefined : level.offset + width;
}

/** The end of a structure inside a structure: one without a name lends its members to the outer one. */
function addNested(levels: Level[], name: string, dimensions: string): void {
  const inner = levels.pop()!;
  const outer = levels.at(-1)!;
  const start = outer.offset;
  add(outer, name === '' ? `unnamed_at_${start}` : name, sizeOfLevel(inner) ?? Number.NaN, dimensions);
  if (name !== '' || start === undefined) return;
  for (const [member, [bit, width]] of inner.places) outer.places.set(member, [start + bit, width]);
}
