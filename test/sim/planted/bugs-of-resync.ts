/** Planted bugs in the bitmap exchange and the resync. */
import type { PlantedBug } from './planted-bug.ts';

export const resyncBugs: readonly PlantedBug[] = [
  {
    name: 'proof-before-target-flush',
    what: 'the target proves blocks that it has not flushed',
    breaks: 'W12',
    file: 'resync-target.ts',
    find: 'core.disk.flush((outcome) => {',
    replace: `core.disk.read(0, 4096, false, (payload) => {
      const outcome = payload === null ? 'failed' : 'ok';`,
    seedsMax: 60,
    checkers: ['unmarked-difference'],
  },
  {
    name: 'proof-before-source-flush',
    what: 'the source clears its bits before it has flushed what it sent',
    breaks: 'W12',
    file: 'resync-source.ts',
    find: '    core.disk.flush((outcome) => {',
    replace: `    core.disk.read(0, 4096, false, (payload) => {
      const outcome = payload === null ? 'failed' : 'ok';`,
    seedsMax: 1000,
    checkers: ['unmarked-difference', 'acknowledged-flush'],
    rare: true,
  },
  {
    name: 'cleared-when-sent',
    what: 'the source clears bits when it sends the data',
    breaks: 'W12',
    file: 'resync-source.ts',
    find: '          if (hole) core.send(',
    replace: `          core.outOfSync.clear([{ first: offset / 4096, count: Math.ceil(length / 4096) }]);
          if (hole) core.send(`,
    seedsMax: 20,
    checkers: ['unmarked-difference'],
  },
  {
    name: 'cleared-when-written',
    what: 'the target reports blocks when they are written',
    breaks: 'W12',
    file: 'resync-target.ts',
    find: 'this.#written.push(request.run);',
    replace: `this.#written.push(request.run);
        core.send({ kind: 'resyncStable', runs: [request.run] });`,
    seedsMax: 40,
    checkers: ['unmarked-difference'],
  },
  {
    name: 'cleared-on-no-sync',
    what: 'equal generations that remember their link clear the bits',
    breaks: 'W12',
    file: 'session.ts',
    find: `core.out.decide('handshake', rule, describeVerdict(verdict), handshakeInputs(self, peer));`,
    replace: 'if (self.current === peer.current && self.linked && peer.linked) core.outOfSync.clearAll();',
    seedsMax: 100,
    checkers: ['unmarked-difference', 'acknowledged-flush'],
  },
  {
    name: 'no-sync-in-spite-of-bits',
    what: 'equal generations are in sync whatever is marked',
    breaks: 'W12',
    file: 'handshake-rules.ts',
    find: 'if (self.dirtyBlocks === 0 && peer.dirtyBlocks === 0) {',
    replace: 'if (self.current === peer.current) {',
    seedsMax: 60,
    checkers: ['identical', 'acknowledged-flush', 'acknowledged-write', 'survivor', 'read'],
  },
  {
    name: 'target-marks-forgotten',
    what: 'the marks of the target are left out of the union',
    breaks: 'W12',
    file: 'sync-start.ts',
    find: 'for (const run of runs) core.outOfSync.markRun(run);',
    replace: '',
    seedsMax: 20,
    checkers: ['unmarked-difference', 'identical'],
  },
  {
    name: 'union-not-sent',
    what: 'the target forgets its marks and the union does not reach it',
    breaks: 'W12',
    file: 'sync-start.ts',
    find: 'for (const run of phase.runs) core.outOfSync.markRun(run);',
    replace: '',
    seedsMax: 10,
    checkers: ['acknowledged-flush', 'acknowledged-write', 'liveness'],
  },
  {
    name: 'union-not-recorded',
    what: 'the source does not record the union',
    breaks: 'W12',
    file: 'sync-start.ts',
    find: '{ clearChunks: true, chunks: core.outOfSync.takeAll() },',
    replace: '{},',
    seedsMax: 40,
    checkers: ['unmarked-difference'],
  },
  {
    name: 'union-sent-early',
    what: 'the source sends the union before it is on record',
    breaks: 'W12',
    file: 'sync-start.ts',
    find: '    const sync = this.#session.sourcePhase();',
    replace: `    const sync = this.#session.sourcePhase();
    this.#sendBitmap();
    core.send({ kind: 'syncStart', current: superblock.current, history: superblock.history });`,
    seedsMax: 10,
    checkers: ['liveness'],
  },
  {
    name: 'full-is-quick',
    what: 'a full resync copies only what is marked',
    breaks: 'W7',
    file: 'sync-start.ts',
    find: 'if (full) core.outOfSync.markAll();',
    replace: '',
    seedsMax: 1000,
    checkers: ['unmarked-difference'],
    rare: true,
  },
  {
    name: 'resync-read-unlocked',
    what: 'the source reads for the target while a write to the range is under way',
    breaks: 'W5',
    file: 'resync-source.ts',
    find: `core.disk.lock(key, offset, length, 'shared', () => {`,
    replace: `core.disk.lock(key, core.options.sizeBytes + offset, length, 'shared', () => {`,
    seedsMax: 40,
    checkers: ['acknowledged-flush', 'identical', 'read', 'acknowledged-write', 'unmarked-difference'],
  },
  {
    name: 'resync-write-unlocked',
    what: 'resync data does not wait for a mirrored write to the range',
    breaks: 'W5',
    file: 'resync-target.ts',
    find: `core.disk.lock(key, offset, length, 'exclusive', () => {`,
    replace: `core.disk.lock(key, core.options.sizeBytes + offset, length, 'exclusive', () => {`,
    seedsMax: 20,
    checkers: ['contract'],
  },
  {
    name: 'resync-data-late',
    what: 'the data of a resync takes its range lock after writes that follow it in the stream',
    breaks: 'W5',
    file: 'resync-target.ts',
    find: `    core.disk.lock(key, offset, length, 'exclusive', () => {
      if (this.#state === 'ended' || !core.hasDisk) return core.disk.unlock(key);
      core.disk.write(`,
    replace: `    const lock = (then: () => void): void =>
      core.disk.read(0, 4096, false, () => core.disk.lock(key, offset, length, 'exclusive', then));
    lock(() => {
      if (this.#state === 'ended' || !core.hasDisk) return core.disk.unlock(key);
      core.disk.write(`,
    seedsMax: 40,
    checkers: ['acknowledged-flush', 'identical', 'unmarked-difference'],
  },
  {
    name: 'resync-read-sent-late',
    what: 'the source gives up the range before it has sent what it read',
    breaks: 'W5',
    file: 'resync-source.ts',
    find: `    core.disk.lock(key, offset, length, 'shared', () => {
      if (this.#ended) return core.disk.unlock(key);
      core.disk.read(`,
    replace: `    core.disk.lock(key, offset, length, 'shared', () => {
      if (this.#ended) return core.disk.unlock(key);
      core.disk.unlock(key);
      core.disk.lock(key, core.options.sizeBytes + offset, length, 'shared', () => undefined);
      core.disk.read(`,
    seedsMax: 100,
    checkers: ['acknowledged-flush', 'identical', 'acknowledged-write', 'unmarked-difference'],
  },
  {
    name: 'window-leaks',
    what: 'a request of the resync that failed stays in the window',
    breaks: 'progress',
    file: 'resync-target.ts',
    find: '    this.#outstandingBytes -= request.run.count * blockBytes;',
    replace: '',
    seedsMax: 20,
    checkers: ['liveness'],
  },
  {
    name: 'second-pass-forgotten',
    what: 'blocks left over from a pass are not asked for again',
    breaks: 'progress',
    file: 'resync-target.ts',
    find: `this.#cursor = 0;
      const failed`,
    replace: 'const failed',
    seedsMax: 1000,
    checkers: ['crash'],
    rare: true,
  },
];
