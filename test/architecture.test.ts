/** The code's own rules, run as a test: the arrows of ARCHITECTURE.md, sizes, forbidden constructs, folder contents. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { complaintsAbout, importsOf, layerOf, layers, textComplaints } from './support/architecture.ts';
import type { Layer, SourceFile } from './support/architecture.ts';

const root = join(import.meta.dirname, '..');

/** Below this a checker has lost sight of the code: it would pass for ever, seeing nothing. */
const fewestFiles: Record<Layer, number> = {
  nbd: 15,
  'replicator/core': 30,
  'replicator/wire': 10,
  'replicator/shell': 15,
  server: 30,
  scripts: 2,
  test: 60,
};

test('every source file keeps to the folder map and the rules of the code', (t) => {
  const files = sourceFiles().filter((file) => file.path.endsWith('.ts'));
  for (const layer of layers) {
    const seen = files.filter((file) => layerOf(file.path) === layer).length;
    t.true(seen >= fewestFiles[layer], `saw only ${seen} files of ${layer}`);
  }
  t.true(files.flatMap(importsOf).length >= files.length, 'saw hardly any imports');
  t.deepEqual(files.flatMap(complaintsAbout), []);
});

test('no text names a path of some machine', (t) => {
  const texts = sourceFiles().filter((file) =>
    /\.(md|js|json|ya?ml|sh|html|css)$|^\.ci\/run$/.test(file.path),
  );
  t.true(texts.length >= 5);
  t.deepEqual(texts.flatMap(textComplaints), []);
});

test('the top level holds nothing but what belongs there', (t) => {
  const present = readdirSync(root).filter((name) => !ignored.has(name) && !name.endsWith('.log'));
  t.deepEqual(
    present.filter((name) => !allowedAtTop.has(name)),
    [],
  );
  for (const name of ['package.json', 'ARCHITECTURE.md', 'nbd', 'replicator', 'test']) {
    t.true(present.includes(name), name);
  }
});

const allowedAtTop = new Set([
  ...['package.json', 'package-lock.json', 'tsconfig.json', 'README.md', 'ARCHITECTURE.md', 'LICENSE'],
  ...['nbd', 'replicator', 'server', 'scripts', 'test', 'docs', '.ci'],
  ...['eslint.config.js', '.prettierrc.json', '.prettierignore', '.gitignore', '.gitattributes', '.npmrc'],
]);
/** What git ignores, and git itself. */
const ignored = new Set(['.git', 'node_modules', '.cache', '.lockstep', 'dist', 'coverage']);

const breach = test.macro({
  exec(t, path: string, text: string, complaint: string) {
    const found = complaintsAbout({ path, text: `// A file.\n${text}\n` });
    t.is(found.length, 1, found.join('\n'));
    t.true(found[0]?.includes(complaint), found[0]);
  },
  title: (_, path: string, text: string) => `caught in ${path}: ${text.trim().slice(0, 60)}`,
});
const core = 'replicator/core/step.ts';
const shell = 'replicator/shell/link.ts';

test(breach, 'nbd/codec.ts', `import '../replicator/core/bitmap.ts';`, 'may not import');
test(breach, 'nbd/codec.ts', `export * from '../server/app.ts';`, 'may not import');
test(breach, core, `import fs from 'node:fs';`, 'may not import node:fs');
test(breach, core, `import type { A } from 'pino';`, 'may not import pino');
test(breach, core, `import { a } from '../../nbd/codec.ts';`, 'may not import');
test(breach, core, `import { a } from '../wire/codec.ts';`, 'may not import');
test(breach, core, `type A = import('../wire/codec.ts').A;`, 'may not import');
test(breach, 'replicator/wire/codec.ts', `import { a } from '../shell/link.ts';`, 'may not import');
test(breach, 'replicator/wire/codec.ts', `import { a } from '../../nbd/block-device.ts';`, 'may not import');
test(breach, shell, `import { a } from '../../server/config.ts';`, 'may not import');
test(breach, shell, `import { a } from '../../nbd/codec.ts';`, 'may not import');
test(breach, shell, `import { a } from '../../test/support/cluster.ts';`, 'may not import');
test(breach, shell, `new Worker(new URL('../../server/plane.ts', import.meta.url));`, 'may not import');
test(breach, shell, `void import(someName);`, 'may not import /computed');
test(breach, 'server/app.ts', `import { main } from './main.ts';`, 'may not import');
test(breach, 'elsewhere/app.ts', ``, 'outside the folder map');
test(breach, 'server/app.ts', `let a: any;`, 'any');
test(breach, 'server/app.ts', `const a = b as unknown as string;`, 'a cast of a cast');
test(breach, 'server/app.ts', `const a = b!;`, 'non-null');
test(breach, 'server/app.ts', `f(/* @ts-` + `ignore */ 1);`, '@ts-');
test(breach, 'server/app.ts', `f(); // eslint-` + `disable-line`, 'eslint-');
test(breach, 'server/app.ts', `const a = '/ho` + `me/someone';`, 'a path of some machine');
test(breach, 'server/app.ts', `\n`.repeat(600), '602 lines');
test(breach, core, `const now = Date.now();`, 'Date in the core');
test(breach, core, `const a = Math.random();`, 'Math.random');
test(breach, core, `const { now } = performance;`, 'performance');
test(breach, core, `async function f() {}`, 'asynchronous');
test(breach, core, `const a = new Promise(() => {});`, 'Promise');

test('a file without a comment at its start is caught, one with an interpreter line before it is not', (t) => {
  t.deepEqual(complaintsAbout({ path: 'nbd/a.ts', text: 'export {};\n' }), [
    'nbd/a.ts: does not start with a comment on its job',
  ]);
  t.deepEqual(complaintsAbout({ path: 'nbd/a.ts', text: '#!/usr/bin/env node\n/** A job. */\n' }), []);
});

test('what is allowed is not complained about', (t) => {
  const allowed: [string, string][] = [
    ['nbd/codec.ts', `import { x } from './constants.ts'; import 'node:net';`],
    [core, `import type { D } from '../../nbd/block-device.ts'; import { a } from './bitmap.ts';`],
    [core, `interface A { process: number } const a: A = { process: 1 }; a.process; Math.floor(1.5);`],
    [core, `const text = '// eslint-` + `disable @ts-` + `ignore any'; const many = true;`],
    [
      shell,
      `import { a } from '../core/step.ts'; import { b } from '../wire/codec.ts'; import 'better-sqlite3';`,
    ],
    [
      'server/app.ts',
      `import { s } from '../nbd/server.ts'; import type { n } from '../replicator/shell/a.ts';`,
    ],
    ['test/a.test.ts', `import { main } from '../server/main.ts';`],
  ];
  for (const [path, text] of allowed) {
    t.deepEqual(complaintsAbout({ path, text: `// A file.\n${text}\n` }), []);
  }
});

/** Every file of the project, hidden folders included, less what git ignores. */
function sourceFiles(): SourceFile[] {
  const files: SourceFile[] = [];
  const visit = (folder: string): void => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (ignored.has(entry.name)) continue;
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile() && entry.name !== 'package-lock.json') {
        files.push({ path, text: readFileSync(join(root, path), 'utf8') });
      }
    }
  };
  visit('');
  return files;
}
