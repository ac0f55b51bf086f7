#!/usr/bin/env node
/** The executable. Checks and prepares the runtime before anything large is loaded, then hands over to the command line. */
import { keepCompiled } from './compile-cache.ts';
import { widenThreadPool } from './thread-pool.ts';
import { holdYoungGeneration } from './young-generation.ts';

const nodeMajorMin = 24;

const major = Number(process.versions.node.split('.')[0]);
if (major < nodeMajorMin) {
  process.stderr.write(
    `lockstep: this is Node ${process.versions.node}; Lockstep needs Node ${nodeMajorMin} or newer ` +
      '(its SQLite module crashes on older ones). From a checkout, "npm run -s lockstep -- ..." uses the right one.\n',
  );
  process.exitCode = 2;
} else {
  holdYoungGeneration();
  widenThreadPool();
  keepCompiled();
  // Imported only now: an older Node would crash while loading it.
  const { runCommandLine } = await import('./cli.ts');
  const status = await runCommandLine(process.argv.slice(2));
  if (status !== null) process.exitCode = status;
}
