import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { loadCatalogue, type MatrixCatalogue } from '../../../matrix/catalogue.js';
import { generateCells, sizeNames } from '../../../matrix/cells.js';
import { renderHtml } from '../../../matrix/html-report.js';
import { debianKernels, type MatrixKernel, matrixKernel } from '../../../matrix/kernels.js';
import { type CellResult, runMatrix, usualJobs } from '../../../matrix/run.js';
import { renderJson, renderKtap, renderText } from '../../../matrix/text-report.js';
import { topologies } from '../../../matrix/topologies.js';
import { isDebianKernel } from '../../../qemu/index.js';
import { UsageError } from '../../../session/exit-status.js';
import { sessionTools } from '../../../session/tools.js';
import { writableFile } from '../../../session/writable-file.js';
import { parseDeviceSpec } from '../../device-spec.js';
import { coldOption, deviceOption } from '../options.js';
import { printProgress } from '../progress.js';

const names = (all: readonly { readonly name: string }[]) => all.map(({ name }) => name);

const dimensions = ['topology', 'exporter', 'importer', 'size'] as const;
type Dimension = (typeof dimensions)[number];

/** The option that narrows each dimension, with the names it takes. */
export function namesOf({ exporters, importers }: MatrixCatalogue): Readonly<Record<Dimension, readonly string[]>> {
  return { topology: names(topologies), exporter: names(exporters), importer: names(importers), size: sizeNames };
}

/** For the help: names that are there without `--device`. */
async function builder(yargs: Argv) {
  return options(yargs, namesOf(await loadCatalogue()));
}

function options(yargs: Argv, known: Readonly<Record<Dimension, readonly string[]>>) {
  const narrowing = (dimension: Dimension) =>
    ({
      type: 'string',
      requiresArg: true,
      description: `Only these, with commas between; there are ${known[dimension].join(', ')}`,
    }) as const;
  return yargs
    .usage(
      '$0 matrix [options]\n\nLets every dma-buf exporter share with every importer, in every topology, on every kernel, ' +
        'and compares what happens with what the kernel’s source says.',
    )
    .options({
      kernel: {
        alias: 'k',
        type: 'string',
        requiresArg: true,
        default: Object.keys(debianKernels).join(','),
        description: 'Kernels, with commas between: lts, latest, or the path of a bzImage or build folder of yours',
      },
      device: deviceOption(
        'A device of yours that takes part, too: name[,key=value…], as of ghostbus run; may be repeated. ' +
          'What it exports and imports is combined with all else',
      ),
      topology: narrowing('topology'),
      exporter: narrowing('exporter'),
      importer: narrowing('importer'),
      size: narrowing('size'),
      jobs: {
        type: 'number',
        requiresArg: true,
        default: usualJobs(),
        description: 'Guests at a time; each takes a processor or two, and some 2 GiB of memory',
      },
      cold: coldOption,
      json: { type: 'boolean', default: false, description: 'Print one JSON object instead of tables' },
      ktap: { type: 'boolean', default: false, description: 'Print KTAP, a cell a line, instead of tables' },
      html: { type: 'string', requiresArg: true, description: 'Write one self-contained HTML page to this file, too' },
    } as const)
    .example('$0 matrix', 'everything')
    .example('$0 matrix -k latest --topology switch,acs --importer mlx5', 'a part')
    .example('$0 matrix -d ./my-device --exporter my-memory', 'your exporter with every importer')
    .example('$0 matrix -k latest,~/linux', "a kernel of yours beside Debian's")
    .epilogue('Exit status: 0 when every cell was as expected, 1 when one was not; otherwise as of ghostbus run.');
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

/** The names of one dimension that were asked for. @throws UsageError for a name that there is not */
export function chosenNames(
  dimension: Dimension,
  text: string | undefined,
  known: readonly string[],
): readonly string[] {
  const wanted = text === undefined ? known : text.split(',');
  const unknown = wanted.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new UsageError(`--${dimension} ${text}: there is no "${unknown}"; there are ${known.join(', ')}`);
  }
  return wanted;
}

/** All devices that take part. @throws UsageError when one of `texts` cannot */
export async function chosenCatalogue(texts: readonly string[]): Promise<MatrixCatalogue> {
  try {
    return await loadCatalogue(texts.map(parseDeviceSpec));
  } catch (error) {
    throw new UsageError(`--device ${texts.join(', ')}: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * The kernels that were asked for, each once. A shell expands `~` only at the beginning of a word, so that of
 * `lts,~/linux` is left to us.
 * @throws UsageError for what is neither a name nor a path; HostSetupError for a path without a usable kernel
 */
export async function chosenKernels(text: string): Promise<MatrixKernel[]> {
  const choices = new Set(text.split(',').map(kernelChoice));
  const kernels = await Promise.all([...choices].map(matrixKernel));
  const labels = kernels.map(({ label }) => label);
  const twice = labels.find((label, index) => labels.indexOf(label) !== index);
  if (twice !== undefined) {
    throw new UsageError(
      `--kernel ${text}: two of these kernels call themselves ${twice}; give one another CONFIG_LOCALVERSION`,
    );
  }
  return kernels;
}

function kernelChoice(text: string): string {
  if (isDebianKernel(text)) return text;
  const path = resolve(text.startsWith('~/') ? join(homedir(), text.slice(2)) : text);
  if (text !== '' && existsSync(path)) return path;
  const names = Object.keys(debianKernels).join(', ');
  throw new UsageError(
    `--kernel: "${text}" is neither of ${names}, nor the path of a bzImage or a kernel build folder`,
  );
}

async function handler(args: Arguments): Promise<void> {
  if (args.json && args.ktap) throw new UsageError('--json and --ktap are two forms of the same output: give one');
  if (!Number.isInteger(args.jobs) || args.jobs < 1) throw new UsageError('--jobs takes a whole number from 1 on');
  const catalogue = await chosenCatalogue(args.device);
  const known = namesOf(catalogue);
  const chosen = (dimension: Dimension) => chosenNames(dimension, args[dimension], known[dimension]);
  const cells = generateCells(catalogue, {
    kernels: await chosenKernels(args.kernel),
    topologies: chosen('topology'),
    exporters: chosen('exporter'),
    importers: chosen('importer'),
    sizes: chosen('size'),
  });
  const htmlPath = args.html === undefined ? undefined : writableFile('--html', args.html);
  const run = await runMatrix(cells, {
    catalogue,
    tools: sessionTools,
    progress: printProgress,
    jobs: args.jobs,
    cold: args.cold,
    onResult: tellProblems,
  });
  const colours = process.stdout.isTTY === true && process.env.NO_COLOR === undefined;
  process.stdout.write(args.json ? renderJson(run) : args.ktap ? renderKtap(run) : renderText(run, colours));
  if (htmlPath !== undefined) await writeFile(htmlPath, renderHtml(run));
  process.exitCode = run.results.every(({ problems }) => problems.length === 0) ? 0 : 1;
}

function tellProblems({ cell, problems }: CellResult): void {
  for (const problem of problems) printProgress(`${cell.id}: ${problem}`);
}

export const matrixCommand: CommandModule<object, Arguments> = {
  command: 'matrix',
  describe: 'Share dma-bufs between all drivers in all topologies, and check each outcome',
  builder: builder as never,
  handler,
};
