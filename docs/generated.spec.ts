/**
 * Pages that are made from the code are what the code would make now, and what programs get is what the schemas say.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { PLUGIN_REFERENCE, renderPluginReference } from './plugin-reference.js';
import { renderSchema, SCHEMAS, SCHEMAS_FOLDER } from './schemas.js';

const PROGRAM = fileURLToPath(new URL('../emulator/cli/main.js', import.meta.url));
const STALE = 'stale: run `npm run docs` and commit what it writes';

/** Types of the language, of Node.js and of pino that public declarations name. */
const NOT_OURS = new Set(
  [
    'AbortSignal Array ArrayBuffer Buffer Error IterableIterator Logger Map NodeJS',
    'Omit Partial Pick Promise Readonly Record RegExp',
  ].flatMap((names) => names.split(' ')),
);

/** Names of types in the declarations of a page: not those in comments and strings, nor their own type parameters. */
function typesNamedIn(page: string): Set<string> {
  const code = [...page.matchAll(/^```ts\n(.*?)^```/gms)]
    .map(([, block]) => block!.replace(/\/\*.*?\*\/|\/\/[^\n]*|'[^'\n]*'/gs, ''))
    .join('\n');
  const parameters = new Set(
    [...code.matchAll(/(?:[<,] ?(?:const )?|infer )([A-Z]\w*)(?= extends| = |>\(|>;|> \{| in )/g)].map(
      ([, name]) => name!,
    ),
  );
  const named = [
    ...code.matchAll(/(?:[:|&<(,=] ?|\b(?:extends|implements|readonly|keyof|typeof|is) )([A-Z]\w*[a-z]\w*)/g),
  ];
  return new Set(named.map(([, name]) => name!).filter((name) => !parameters.has(name)));
}

describe('pages made from the code', () => {
  it('docs/plugin-api.md is what the public names export', () => {
    assert.ok(readFileSync(PLUGIN_REFERENCE, 'utf8') === renderPluginReference(), STALE);
  });

  it('docs/plugin-api.md lists every type that it mentions', () => {
    const page = readFileSync(PLUGIN_REFERENCE, 'utf8');
    const listed = new Set([...page.matchAll(/^(?:### | {2}interface )(\w+)/gm)].map(([, name]) => name));
    const missing = [...typesNamedIn(page)].filter((name) => !listed.has(name) && !NOT_OURS.has(name));
    assert.deepEqual(missing, []);
  });

  for (const [name, schema] of Object.entries(SCHEMAS)) {
    it(`docs/schemas/${name}.schema.json is the schema of the code`, () => {
      const file = join(SCHEMAS_FOLDER, `${name}.schema.json`);
      assert.ok(readFileSync(file, 'utf8') === renderSchema(schema), STALE);
    });
  }

  it('docs/schemas has no schema of what is not printed any more', () => {
    const files = readdirSync(SCHEMAS_FOLDER).filter((file) => file.endsWith('.json'));
    assert.deepEqual(
      files.sort(),
      Object.keys(SCHEMAS)
        .map((name) => `${name}.schema.json`)
        .sort(),
    );
  });
});

describe('output for programs', () => {
  const started: ChildProcess[] = [];

  afterEach(async () => {
    for (const program of started.splice(0)) {
      if (program.exitCode !== null) continue;
      program.kill('SIGTERM');
      await once(program, 'exit');
    }
  });

  function ghostbus(...args: string[]): ChildProcess {
    const program = spawn(process.execPath, [PROGRAM, ...args], { stdio: ['ignore', 'pipe', 'ignore'] });
    started.push(program);
    return program;
  }

  /** What it prints up to its end, or up to the first whole JSON value if it goes on. */
  async function printed(program: ChildProcess): Promise<unknown> {
    let text = '';
    for await (const chunk of program.stdout!) {
      text += String(chunk);
      if (/^[\]}]\n$/m.test(text)) break;
    }
    return JSON.parse(text);
  }

  const accepts = (schema: z.ZodType, value: unknown) => {
    const { error } = schema.safeParse(value);
    assert.equal(error && z.prettifyError(error), undefined);
  };

  it('devices --json: all of them, and one', async () => {
    accepts(SCHEMAS.devices, await printed(ghostbus('devices', '--json')));
    accepts(SCHEMAS.devices, [await printed(ghostbus('devices', 'gpu', '--json'))]);
  });

  it('doctor --json', async () => {
    accepts(SCHEMAS.doctor, await printed(ghostbus('doctor', '--json')));
  });

  it('serve --format json, and ctl all state meanwhile', async () => {
    const facts = SCHEMAS.serve.parse(await printed(ghostbus('serve', '--format', 'json', '--device', 'example')));
    const folder = join(facts.controlSocketPath, '..');
    const states = await printed(ghostbus('ctl', 'all', 'state', '--socket-dir', folder));
    accepts(SCHEMAS['ctl-state'], states);
  });
});
