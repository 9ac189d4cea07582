import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import { UsageError } from '../../../session/exit-status.js';
import { BUILT_IN_PLUGINS, loadPlugin } from '../../find-plugin.js';
import { describePlugin } from '../describe-plugin.js';
import type { OptionDescription, PluginDescription } from '../plugin-description.js';

function options(yargs: Argv) {
  return yargs
    .usage('$0 devices [NAME] [--json]\n\nLists the device plugins, or everything about one.')
    .positional('name', { type: 'string', describe: 'One of ours, an npm package, or a path' })
    .options({ json: { type: 'boolean', default: false, description: 'Print JSON' } } as const)
    .example('$0 devices gpu', 'its ids, BARs, drivers, options and commands')
    .example('$0 devices ./my-plugin', 'a plugin of your own');
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

/** One line for a plugin: name, ids, what it is. */
export function formatSummary(plugin: PluginDescription): string {
  const ids = [...new Set(plugin.functions.map(({ id }) => id))].join(', ');
  return `${plugin.name.padEnd(10)} ${ids}  ${plugin.description}`;
}

/**
 * All that is known of one plugin.
 * @param asked the plugin as the user wrote it
 */
export function formatPlugin(plugin: PluginDescription, asked: string = plugin.name): string {
  const functions = plugin.functions.flatMap((fn) => [
    `  ${fn.id} (revision ${fn.revision}), class ${fn.classCode}, subsystem ${fn.subsystem}`,
    ...fn.bars.map((bar) => `    ${bar}`),
  ]);
  return [
    `${plugin.name}: ${plugin.description}`,
    `drivers: ${plugin.drivers.join(', ') || 'none'}`,
    'functions, with default options:',
    ...functions,
    plugin.options.length > 0 ? `options, for --device ${asked},key=value…:` : 'no options',
    ...formatOptions(plugin.options, '  '),
    ...formatCommands(plugin),
  ].join('\n');
}

function formatOptions(options: readonly OptionDescription[], indent: string): string[] {
  const widest = Math.max(0, ...options.map(({ key, type }) => key.length + type.length + 1));
  return options.map((option) => {
    const value = option.required ? ' [required]' : option.default === undefined ? '' : ` [default: ${option.default}]`;
    return `${indent}${`${option.key}=${option.type}`.padEnd(widest)}  ${option.description}${value}`;
  });
}

function formatCommands({ name, commands }: PluginDescription): string[] {
  if (commands.length === 0) return ['no commands'];
  return [
    `commands, for ghostbus ctl ${name}0 COMMAND key=value…:`,
    ...commands.flatMap((command) => [
      `  ${command.name}: ${command.description}`,
      ...formatOptions(command.arguments, '    '),
    ]),
  ];
}

async function handler(args: Arguments): Promise<void> {
  const names = args.name === undefined ? BUILT_IN_PLUGINS : [args.name];
  const plugins = await Promise.all(
    names.map(async (name) => {
      const { plugin } = await loadPlugin(name).catch((error: Error) => {
        throw args.name === undefined ? error : new UsageError(error.message);
      });
      return describePlugin(plugin);
    }),
  );
  if (args.json) console.log(JSON.stringify(args.name === undefined ? plugins : plugins[0], undefined, 2));
  else if (args.name !== undefined) console.log(formatPlugin(plugins[0]!, args.name));
  else
    console.log(`${plugins.map(formatSummary).join('\n')}\n\nghostbus devices NAME tells options, BARs and commands.`);
}

export const devicesCommand: CommandModule<object, Arguments> = {
  command: 'devices [name]',
  describe: 'List the device plugins, their options and their commands',
  builder: options as never,
  handler,
};
