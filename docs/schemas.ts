/**
 * Makes docs/schemas/: JSON Schema of what the commands print for programs, from the very schemas
 * whose types the code has.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { cacheReport, pruneReport } from '../emulator/cli/cache-report.js';
import { findings } from '../emulator/cli/host-checks.js';
import { pluginDescriptions } from '../emulator/cli/plugin-description.js';
import { serveFacts } from '../emulator/cli/serve-facts.js';
import { functionState } from '../emulator/function-state.js';
import { matrixReport } from '../matrix/report.js';
import { repeatReport, runReport } from '../session/run-report.js';

export const SCHEMAS_FOLDER = fileURLToPath(new URL('../../docs/schemas', import.meta.url));

/** By file name, without its ending. */
export const SCHEMAS = {
  cache: cacheReport,
  'cache-prune': pruneReport,
  'ctl-state': z.array(functionState).readonly().meta({ title: 'ghostbus ctl all state' }),
  devices: pluginDescriptions,
  doctor: findings,
  matrix: matrixReport,
  run: runReport,
  'run-repeat': repeatReport,
  serve: serveFacts,
} satisfies Readonly<Record<string, z.ZodType>>;

export const renderSchema = (schema: z.ZodType): string => `${JSON.stringify(z.toJSONSchema(schema), undefined, 2)}\n`;

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  mkdirSync(SCHEMAS_FOLDER, { recursive: true });
  for (const [name, schema] of Object.entries(SCHEMAS)) {
    writeFileSync(join(SCHEMAS_FOLDER, `${name}.schema.json`), renderSchema(schema));
  }
}
