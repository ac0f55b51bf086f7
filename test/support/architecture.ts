/**
 * The folder map of ARCHITECTURE.md and the rules of the code as functions from a file's text to complaints, so
 * that architecture.test.ts can try each rule on a text that breaks it. Parsed, not searched by patterns.
 */
import { join, normalize } from 'node:path/posix';
import ts from 'typescript';

export interface SourceFile {
  /** Relative to the project, with forward slashes. */
  readonly path: string;
  readonly text: string;
}

export const layers = [
  'nbd',
  'replicator/core',
  'replicator/wire',
  'replicator/shell',
  'server',
  'scripts',
  'test',
] as const;
export type Layer = (typeof layers)[number];

export function layerOf(path: string): Layer | null {
  return layers.find((layer) => path.startsWith(`${layer}/`)) ?? null;
}

/** Everything wrong with one file, each complaint with its place. */
export function complaintsAbout(file: SourceFile): string[] {
  const source = parse(file);
  const complaints = [
    ...importComplaints(file, source),
    ...syntaxComplaints(file, source),
    ...textComplaints(file),
  ];
  const lineCount = file.text.split('\n').length - 1;
  if (lineCount > maxLines) complaints.push(`${file.path}: ${lineCount} lines, more than ${maxLines}`);
  if (!startsWithComment(file.text)) {
    complaints.push(`${file.path}: does not start with a comment on its job`);
  }
  return complaints;
}

/** What must hold for any text file of the project, whatever its language. */
export function textComplaints(file: SourceFile): string[] {
  const complaints: string[] = [];
  for (const [index, line] of file.text.split('\n').entries()) {
    if (machinePath.test(line)) complaints.push(`${file.path}:${index + 1}: a path of some machine`);
  }
  return complaints;
}

const maxLines = 600;
/** Home directories and scratch places; put together so that this file does not complain about itself. */
const machinePath = new RegExp(
  `(^|[\\s'"\`(=:])/(${['work', 'home', 'root', 'Users'].join('|')})/[\\w.]|/tmp/(wt|bash_jobs|prompts)\\b`,
);

/** Every module that a file names: imports, re-exports, dynamic imports and workers (`new URL(..., import.meta.url)`). */
export function importsOf(file: SourceFile): string[] {
  return importNodes(parse(file)).map((each) => each.specifier);
}

function importComplaints(file: SourceFile, source: ts.SourceFile): string[] {
  const layer = layerOf(file.path);
  if (layer === null) return [`${file.path}: lies outside the folder map`];
  const complaints: string[] = [];
  for (const { specifier, node } of importNodes(source)) {
    if (!mayImport(file.path, layer, specifier)) {
      complaints.push(`${place(file, source, node)}: ${layer} may not import ${specifier}`);
    }
  }
  return complaints;
}

function mayImport(path: string, layer: Layer, specifier: string): boolean {
  if (layer === 'scripts' || layer === 'test') return true;
  const own = specifier.startsWith('.');
  if (!own) return layer !== 'replicator/core' && !specifier.startsWith('/');
  const target = normalize(join(path, '..', specifier));
  if (target === 'server/main.ts') return false;
  if (target === 'package.json') return layer === 'server';
  const targetLayer = layerOf(target);
  if (targetLayer === null) return false;
  if (targetLayer === layer) return true;
  const blockDevice = target === 'nbd/block-device.ts';
  switch (layer) {
    case 'nbd':
      return false;
    case 'replicator/core':
      return blockDevice;
    case 'replicator/wire':
      return targetLayer === 'replicator/core';
    case 'replicator/shell':
      return targetLayer === 'replicator/core' || targetLayer === 'replicator/wire' || blockDevice;
    case 'server':
      return targetLayer === 'nbd' || targetLayer.startsWith('replicator/');
    default:
      return layer satisfies never;
  }
}

interface ImportNode {
  readonly specifier: string;
  readonly node: ts.Node;
}

function importNodes(source: ts.SourceFile): ImportNode[] {
  const found: ImportNode[] = [];
  const add = (specifier: ts.Node | undefined, node: ts.Node): void => {
    if (specifier !== undefined && ts.isStringLiteralLike(specifier)) {
      found.push({ specifier: specifier.text, node });
    } else if (ts.isCallExpression(node)) {
      // What cannot be read here cannot be checked.
      found.push({ specifier: '/computed', node });
    }
  };
  walk(source, (node) => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, node);
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node);
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add(node.argument.literal, node);
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], node);
    } else if (ts.isNewExpression(node) && isRelativeUrl(node)) add(node.arguments?.[0], node);
  });
  return found;
}

/** `new URL('./worker.ts', import.meta.url)`: how a worker thread's file is named. */
function isRelativeUrl(node: ts.NewExpression): boolean {
  const [path, base] = node.arguments ?? [];
  return (
    ts.isIdentifier(node.expression) &&
    node.expression.text === 'URL' &&
    base?.getText() === 'import.meta.url' &&
    path !== undefined &&
    ts.isStringLiteralLike(path) &&
    path.text.endsWith('.ts')
  );
}

function syntaxComplaints(file: SourceFile, source: ts.SourceFile): string[] {
  const complaints: string[] = [];
  const isCore = layerOf(file.path) === 'replicator/core';
  walk(source, (node) => {
    const complaint = castComplaint(node) ?? (isCore ? coreComplaint(node) : null);
    if (complaint !== null) complaints.push(`${place(file, source, node)}: ${complaint}`);
  });
  for (const comment of commentsOf(source)) {
    const directive = forbiddenDirective.exec(comment)?.[0];
    if (directive !== undefined) complaints.push(`${file.path}: ${directive}`);
  }
  return complaints;
}

const forbiddenDirective = /@ts-(ignore|nocheck|expect-error)|eslint-disable|prettier-ignore/;

function castComplaint(node: ts.Node): string | null {
  if (node.kind === ts.SyntaxKind.AnyKeyword) return 'any';
  if (ts.isAsExpression(node) && ts.isAsExpression(node.expression)) return 'a cast of a cast';
  if (ts.isNonNullExpression(node)) return 'a non-null assertion';
  return null;
}

/** The core has no clock, randomness, I/O or promise of its own. */
function coreComplaint(node: ts.Node): string | null {
  if (ts.isAwaitExpression(node) || node.kind === ts.SyntaxKind.AsyncKeyword)
    return 'asynchronous code in the core';
  if (!ts.isIdentifier(node) || isMemberName(node)) return null;
  if (forbiddenInCore.has(node.text)) return `${node.text} in the core`;
  const access = node.parent;
  if (node.text === 'Math' && ts.isPropertyAccessExpression(access) && access.name.text === 'random') {
    return 'Math.random in the core';
  }
  return null;
}

const forbiddenInCore = new Set([
  'Date',
  'performance',
  'process',
  'Buffer',
  'Promise',
  'crypto',
  'console',
  'fetch',
  'globalThis',
  'queueMicrotask',
  'setTimeout',
  'setInterval',
  'setImmediate',
  'require',
]);

/** A name after a dot or of a declared member is not a use of the global of that name. */
function isMemberName(node: ts.Identifier): boolean {
  const parent = node.parent;
  return (
    (ts.isPropertyAccessExpression(parent) && parent.name === node) ||
    ((ts.isPropertySignature(parent) ||
      ts.isPropertyDeclaration(parent) ||
      ts.isPropertyAssignment(parent) ||
      ts.isMethodDeclaration(parent) ||
      ts.isMethodSignature(parent)) &&
      parent.name === node)
  );
}

function parse(file: SourceFile): ts.SourceFile {
  return ts.createSourceFile(file.path, file.text, ts.ScriptTarget.ES2024, true, ts.ScriptKind.TS);
}

function walk(node: ts.Node, visit: (node: ts.Node) => void): void {
  visit(node);
  ts.forEachChild(node, (child) => walk(child, visit));
  // Modifiers (`async`) are among the children already; JSDoc is not walked: it is comment.
}

/** The text of every comment, found between tokens so that strings and templates are not taken for comments. */
function commentsOf(source: ts.SourceFile): string[] {
  const text = source.text;
  const comments = new Map<number, string>();
  const visit = (node: ts.Node): void => {
    for (const range of ts.getLeadingCommentRanges(text, node.getFullStart()) ?? []) {
      comments.set(range.pos, text.slice(range.pos, range.end));
    }
    for (const range of ts.getTrailingCommentRanges(text, node.getEnd()) ?? []) {
      comments.set(range.pos, text.slice(range.pos, range.end));
    }
    for (const child of node.getChildren(source)) visit(child);
  };
  visit(source);
  return [...comments.values()];
}

function startsWithComment(text: string): boolean {
  const afterInterpreter = text.startsWith('#!') ? text.slice(text.indexOf('\n') + 1) : text;
  return /^(\/\*|\/\/)/.test(afterInterpreter);
}

function place(file: SourceFile, source: ts.SourceFile, node: ts.Node): string {
  return `${file.path}:${source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1}`;
}
