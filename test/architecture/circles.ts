/** Files that import each other, directly or through others. */
import type { ImportGraph } from './imports.js';

/**
 * Every set of two or more files in which each reaches each (Tarjan's strongly connected components), sorted by name.
 */
export function circles(graph: ImportGraph): readonly (readonly string[])[] {
  const order = new Map<string, number>();
  const lowest = new Map<string, number>();
  const path: string[] = [];
  const found: string[][] = [];
  const visit = (file: string): void => {
    order.set(file, order.size);
    lowest.set(file, order.get(file)!);
    path.push(file);
    for (const next of filesOf(graph, file)) {
      if (!order.has(next)) visit(next);
      if (path.includes(next)) lowest.set(file, Math.min(lowest.get(file)!, lowest.get(next)!));
    }
    if (lowest.get(file) !== order.get(file)) return;
    const circle = path.splice(path.indexOf(file));
    if (circle.length > 1) found.push(circle.sort());
  };
  for (const file of graph.keys()) if (!order.has(file)) visit(file);
  return found;
}

function filesOf(graph: ImportGraph, file: string): string[] {
  return (graph.get(file) ?? []).flatMap((entry) => ('file' in entry ? [entry.file] : []));
}
