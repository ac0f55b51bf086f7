/**
 * Loads the core with a bug planted in it, beside the real one. Each bug gets module instances of its own for all of the
 * core, told apart by the query of their URLs; nothing is written anywhere, and the core itself knows nothing of it.
 */
import { registerHooks } from 'node:module';
import type { CoreOptions, GenerationSource } from '../../../replicator/core/options.ts';
import type { MakeCore, SimulatedCore } from '../sim-node.ts';
import type { PlantedBug } from './planted-bug.ts';
import { plant } from './planted-bug.ts';

type CoreClass = new (options: CoreOptions, ids: GenerationSource) => SimulatedCore;

const coreFolder = new URL('../../../replicator/core/', import.meta.url).href;
const mark = '?planted=';
const bugs = new Map<string, PlantedBug>();
const planted = new Set<string>();

export async function loadPlanted(bug: PlantedBug): Promise<MakeCore> {
  if (bugs.size === 0) installHooks();
  bugs.set(bug.name, bug);
  const loaded: unknown = await import(`${coreFolder}core.ts${mark}${bug.name}`);
  if (!isCoreModule(loaded)) throw new Error('core.ts exports no class Core');
  if (!planted.has(bug.name)) throw new Error(`${bug.name}: the core does not load ${bug.file}`);
  const { Core } = loaded;
  return (options, ids) => new Core(options, ids);
}

function installHooks(): void {
  registerHooks({
    resolve(specifier, context, next) {
      const resolved = next(specifier, context);
      const query = queryOf(context.parentURL ?? '');
      if (query === null || !resolved.url.startsWith(coreFolder)) return resolved;
      return { ...resolved, url: resolved.url + query };
    },
    load(url, context, next) {
      const loaded = next(url, context);
      const bug = bugs.get(queryOf(url)?.slice(mark.length) ?? '');
      if (bug === undefined || url !== `${coreFolder}${bug.file}${mark}${bug.name}`) return loaded;
      planted.add(bug.name);
      const { source } = loaded;
      const text = typeof source === 'string' ? source : new TextDecoder().decode(source ?? undefined);
      return { ...loaded, source: plant(bug, text) };
    },
  });
}

function queryOf(url: string): string | null {
  const at = url.indexOf(mark);
  return at === -1 ? null : url.slice(at);
}

function isCoreModule(module: unknown): module is { readonly Core: CoreClass } {
  return (
    typeof module === 'object' && module !== null && 'Core' in module && typeof module.Core === 'function'
  );
}
