/** What `ghostbus devices --json` prints. */
import { z } from 'zod';

const option = z
  .strictObject({
    key: z.string(),
    type: z.string().describe('for example size, integer, true|false, or the choices'),
    default: z.string().exactOptional().describe('as it would be written after key='),
    required: z.literal(true).exactOptional().describe('has to be given'),
    description: z.string(),
  })
  .readonly();

const command = z
  .strictObject({ name: z.string(), description: z.string(), arguments: z.array(option).readonly() })
  .readonly();

const describedFunction = z
  .strictObject({
    id: z.string().describe('vendor:device, four hexadecimal digits each, as lspci writes them'),
    subsystem: z.string(),
    classCode: z.string().describe('six hexadecimal digits'),
    revision: z.string(),
    bars: z.array(z.string()).readonly(),
  })
  .readonly();

const pluginDescription = z
  .strictObject({
    name: z.string(),
    description: z.string(),
    drivers: z.array(z.string()).readonly().describe('kernel modules that drive it'),
    options: z.array(option).readonly(),
    functions: z.array(describedFunction).readonly(),
    commands: z.array(command).readonly().describe('for ghostbus ctl'),
  })
  .readonly();

export const pluginDescriptions = z.array(pluginDescription).readonly().meta({ title: 'ghostbus devices --json' });

export type OptionDescription = z.infer<typeof option>;
export type CommandDescription = z.infer<typeof command>;
export type FunctionDescription = z.infer<typeof describedFunction>;
export type PluginDescription = z.infer<typeof pluginDescription>;
