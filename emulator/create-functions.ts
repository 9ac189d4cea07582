import { errorText } from './error-text.js';
import type { CreateContext, PcieFunction, Plugin } from './plugin/index.js';
import { cardProblem } from './plugin/shape.js';

/** The functions of one device. @throws Error that names the device when its plugin fails, or returns something else */
export function createFunctions(plugin: Plugin, options: unknown, context: CreateContext): readonly PcieFunction[] {
  const created = callCreate(plugin, options, context);
  const cards = Array.isArray(created) ? created : [created];
  for (const card of cards) {
    const problem = cardProblem(card);
    if (problem !== undefined) throw new Error(`${context.name}: create returned ${problem}`);
  }
  return cards;
}

function callCreate(plugin: Plugin, options: unknown, context: CreateContext): unknown {
  try {
    return plugin.create(options, context);
  } catch (cause) {
    throw new Error(`${context.name}: create failed: ${errorText(cause)}`, { cause });
  }
}
