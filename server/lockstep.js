/**
 * Starts main.ts in a checkout. Plain JavaScript, because a Node that cannot read TypeScript at all has to get as far
 * as saying so; one that can, and is too old nevertheless, hears it from main.ts.
 */
try {
  await import('./main.ts');
} catch (error) {
  if (error?.code !== 'ERR_UNKNOWN_FILE_EXTENSION') throw error;
  process.stderr.write(
    `lockstep: this is Node ${process.versions.node}; Lockstep needs Node 24 or newer. ` +
      'From a checkout, "npm run -s lockstep -- ..." uses the right one.\n',
  );
  process.exitCode = 2;
}
