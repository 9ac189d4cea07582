import { z } from 'zod';
import type { BarShape, Commands, PcieFunction, Plugin } from '../plugin/index.js';
import { formatByteSize } from '../plugin/options.js';
import { withUnplugged } from '../unplugged.js';
import type {
  CommandDescription,
  FunctionDescription,
  OptionDescription,
  PluginDescription,
} from './plugin-description.js';

interface ObjectSchema {
  readonly properties?: Readonly<Record<string, PropertySchema>>;
  readonly required?: readonly string[];
}

interface PropertySchema {
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly PropertySchema[];
  readonly default?: unknown;
  readonly description?: string;
}

/** What `key=value` pairs a plugin or a command takes, from its schema. */
export function describeOptions(options: z.ZodType): OptionDescription[] {
  const schema = z.toJSONSchema(options, { io: 'input', unrepresentable: 'any' });
  const { properties = {}, required = [] } = schema as ObjectSchema;
  return Object.entries(properties).map(([key, property]) => ({
    key,
    type: typeOf(property),
    ...(property.default === undefined ? {} : { default: String(property.default) }),
    ...(required.includes(key) ? { required: true } : {}),
    description: property.description ?? '',
  }));
}

function describeCommands(commands: Commands): CommandDescription[] {
  return Object.entries(commands).map(([name, { description, arguments: schema }]) => ({
    name,
    description,
    arguments: describeOptions(schema),
  }));
}

function typeOf(property: PropertySchema): string {
  if (property.enum !== undefined) return property.enum.join('|');
  if (property.type === 'boolean') return 'true|false';
  if (typeof property.type === 'string') return property.type;
  const types = property.type ?? (property.anyOf ?? []).map(typeOf);
  // What byteSize() of options.ts looks like from outside.
  if (types.includes('string') && types.includes('number') && types.length === 2) return 'size';
  return types.join('|') || 'value';
}

export function describePlugin(plugin: Plugin): PluginDescription {
  return withUnplugged(plugin, (functions) => ({
    name: plugin.name,
    description: plugin.description,
    drivers: plugin.guest?.drivers ?? [],
    options: describeOptions(plugin.options),
    functions: functions.map(describeFunction),
    commands: describeCommands(plugin.commands ?? {}),
  }));
}

function describeFunction({ identity, bars }: PcieFunction): FunctionDescription {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  return {
    id: `${hex(identity.vendorId, 4)}:${hex(identity.deviceId, 4)}`,
    subsystem: `${hex(identity.subsystemVendorId, 4)}:${hex(identity.subsystemId, 4)}`,
    classCode: hex(identity.classCode, 6),
    revision: hex(identity.revisionId, 2),
    bars: bars.map(describeBar),
  };
}

function describeBar(bar: BarShape): string {
  const kinds = { memory32: '32-bit', memory64: '64-bit', io: 'I/O' } as const;
  const prefetchable = bar.prefetchable ? ' prefetchable' : '';
  return `BAR${bar.index} ${formatByteSize(bar.sizeBytes)} ${kinds[bar.kind]}${prefetchable}`;
}
