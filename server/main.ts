/** The process itself. Started by lockstep.js, which has looked at the version of Node, or by a Node known to do. */
import { runCommandLine } from './cli.ts';

const status = await runCommandLine(process.argv.slice(2));
if (status !== null) process.exitCode = status;
