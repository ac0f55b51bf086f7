/**
 * Turns what a schema rejects into sentences that name the key. Used for request bodies, the configuration
 * file and stored definitions alike.
 */
import type { Static, TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { didYouMean } from './nearest.ts';

export interface Mistake {
  /** The key, as `peers/0/address`; empty for the value itself. */
  readonly path: string;
  /** A sentence that names the key. */
  readonly message: string;
}

export type Checked<T> =
  { readonly ok: true; readonly value: T } | { readonly ok: false; readonly mistakes: readonly Mistake[] };

/** Mistakes told at once; a hostile document could hold a million. */
const mistakesMax = 10;

/** The result checks values against the schema, which is compiled at its first use: most are never used in one process. */
export function checker<S extends TSchema>(schema: S): (value: unknown) => Checked<Static<S>> {
  let compiled: ReturnType<typeof Compile<S>> | null = null;
  return (value) => {
    compiled ??= Compile(schema);
    return compiled.Check(value)
      ? { ok: true, value }
      : { ok: false, mistakes: describe(schema, compiled.Errors(value)) };
  };
}

interface SchemaError {
  readonly keyword: string;
  readonly instancePath: string;
  readonly params: object;
  readonly message: string;
}

function describe(schema: TSchema, errors: readonly SchemaError[]): readonly Mistake[] {
  const mistakes = new Map<string, string>();
  const add = (path: string, message: string) => {
    if (!mistakes.has(path) && mistakes.size < mistakesMax) mistakes.set(path, message);
  };
  for (const error of errors) {
    const path = error.instancePath.slice(1);
    const node = descend(schema, path);
    if (error.keyword === 'required') {
      for (const key of strings(error.params, 'requiredProperties'))
        add(join(path, key), `"${join(path, key)}" is missing`);
    } else if (error.keyword === 'additionalProperties') {
      const known = Object.keys(properties(node));
      for (const key of strings(error.params, 'additionalProperties')) {
        const where = path === '' ? '' : ` in "${path}"`;
        add(join(path, key), `unknown key "${key}"${where}${didYouMean(key, known)}`);
      }
    } else if (error.keyword !== 'boolean') {
      // One sentence per value: the description of its schema says what is wanted better than the keyword does.
      const wanted = text(node, 'description');
      const what = path === '' ? 'it' : `"${path}"`;
      add(path, wanted === null ? `${what} ${error.message}` : `${what} must be ${wanted}`);
    }
  }
  return [...mistakes].map(([path, message]) => ({ path, message }));
}

function join(path: string, key: string): string {
  return path === '' ? key : `${path}/${key}`;
}

/** The schema that governs the value at `path`; a part of unknown shape has none. */
function descend(schema: object, path: string): object {
  let node = schema;
  if (path === '') return node;
  for (const key of path.split('/')) {
    const choices = list(node, 'anyOf');
    const next = [node, ...choices]
      .map(
        (candidate) => member(properties(candidate), key) ?? member(candidate, 'items') ?? anyKey(candidate),
      )
      .find((candidate) => candidate !== null);
    if (!next) return {};
    node = next;
  }
  return node;
}

/** What a record takes under every key. */
function anyKey(schema: object): object | null {
  const patterns = member(schema, 'patternProperties') ?? {};
  const [first] = Object.keys(patterns);
  return first === undefined ? null : member(patterns, first);
}

function properties(schema: object): object {
  return member(schema, 'properties') ?? {};
}

function member(of: object, key: string): object | null {
  const value = Object.entries(of).find(([name]) => name === key)?.[1] as unknown;
  return typeof value === 'object' && value !== null ? value : null;
}

function list(of: object, key: string): readonly object[] {
  const value = member(of, key);
  return Array.isArray(value) ? value.filter((entry): entry is object => typeof entry === 'object') : [];
}

function strings(of: object, key: string): readonly string[] {
  const value = member(of, key);
  return Array.isArray(value) ? value.filter((entry): entry is string => typeof entry === 'string') : [];
}

function text(of: object, key: string): string | null {
  const value = Object.entries(of).find(([name]) => name === key)?.[1] as unknown;
  return typeof value === 'string' ? value : null;
}
