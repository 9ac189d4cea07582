import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { UsageError } from '../../../session/exit-status.js';
import { BUILT_IN_PLUGINS, loadPlugin } from '../../device-spec.js';
import { describePlugin, type PluginDescription } from '../describe-plugin.js';

function options(yargs: Argv) {
  return yargs
    .usage('$0 devices [NAME] [--json]\n\nLists the device plugins, or everything about one.')
    .positional('name', { type: 'string', describe: 'One of ours, an npm package, or a path' })
    .options({ json: { type: 'boolean', default: false, description: 'Print JSON' } } as const)
    .example('$0 devices gpu', 'its ids, BARs, drivers and options')
    .example('$0 devices ./my-plugin', 'a plugin of your own');
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

/** One line for a plugin: name, ids, what it is. */
export function formatSummary(plugin: PluginDescription): string {
  const ids = [...new Set(plugin.functions.map(({ id }) => id))].join(', ');
  return `${plugin.name.padEnd(10)} ${ids}  ${plugin.description}`;
}

/** All that is known of one plugin. */
export function formatPlugin(plugin: PluginDescription): string {
  const functions = plugin.functions.flatMap((fn) => [
    `  ${fn.id} (revision ${fn.revision}), class ${fn.classCode}, subsystem ${fn.subsystem}`,
    ...fn.bars.map((bar) => `    ${bar}`),
  ]);
  const widest = Math.max(0, ...plugin.options.map(({ key, type }) => key.length + type.length + 1));
  const options = plugin.options.map((option) => {
    const value = option.default === undefined ? '' : ` [default: ${option.default}]`;
    return `  ${`${option.key}=${option.type}`.padEnd(widest)}  ${option.description}${value}`;
  });
  return [
    `${plugin.name}: ${plugin.description}`,
    `drivers: ${plugin.drivers.join(', ') || 'none'}`,
    'functions, with default options:',
    ...functions,
    options.length > 0 ? `options, for --device ${plugin.name},key=value…:` : 'no options',
    ...options,
  ].join('\n');
}

async function handler(args: Arguments): Promise<void> {
  const names = args.name === undefined ? BUILT_IN_PLUGINS : [args.name];
  const plugins = await Promise.all(
    names.map(async (name) => {
      const plugin = await loadPlugin(name).catch((error: Error) => {
        throw args.name === undefined ? error : new UsageError(error.message);
      });
      return describePlugin(plugin);
    }),
  );
  if (args.json) console.log(JSON.stringify(args.name === undefined ? plugins : plugins[0], undefined, 2));
  else if (args.name !== undefined) console.log(formatPlugin(plugins[0]!));
  else console.log(`${plugins.map(formatSummary).join('\n')}\n\nghostbus devices NAME tells options and BARs.`);
}

export const devicesCommand: CommandModule<object, Arguments> = {
  command: 'devices [name]',
  describe: 'List the device plugins and their options',
  builder: options as never,
  handler,
};
