/** Holds the flock(2) lock of a file until its input ends: any other program that uses the file. */
import { openSync } from 'node:fs';
import { tryLock } from '../../replicator/shell/libc.ts';

const fd = openSync(process.argv[2] ?? '', 'r+');
console.log(tryLock(fd) ? 'locked' : 'refused');
process.stdin.resume();
