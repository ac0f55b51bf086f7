#!/usr/bin/env node
/**
 * What `lockstep` runs. Plain JavaScript, which any Node understands: one that is too old for the sources, or crashes
 * in the SQLite module, has to get as far as saying so.
 */
const nodeMajorMin = 24;

const major = Number(process.versions.node.split('.')[0]);
if (major < nodeMajorMin) {
  process.stderr.write(
    `lockstep: this is Node ${process.versions.node}; Lockstep needs Node ${nodeMajorMin} or newer ` +
      '(its SQLite module crashes on older ones). From a checkout, "npm run -s lockstep -- ..." uses the right one.\n',
  );
  process.exitCode = 2;
} else {
  await import('./main.ts');
}
