/** Recorded and fresh seeds through the simulator: the production core under faults, with its checkers on. */
import test from 'ava';
import { Core } from '../../replicator/core/core.ts';
import type { Effect } from '../../replicator/core/effect.ts';
import type { Event } from '../../replicator/core/event.ts';
import { runHistory } from './run.ts';
import type { MakeCore } from './sim-node.ts';

/** Each of these once ended badly; what was wrong is told by the commit that mended it. */
const foundSeeds = [
  22, 28, 48, 64, 68, 76, 113, 137, 213, 219, 259, 295, 314, 317, 324, 356, 375, 415, 432, 460, 568, 576, 582,
  587, 618, 675, 687, 2061, 2224, 2327, 5209, 5879, 6170, 10257, 10356, 21063, 40633, 50764,
];

const freshSeeds = Array.from({ length: 20 }, (_, index) => 100_000 + index);

for (const [what, seeds] of Object.entries({ found: foundSeeds, fresh: freshSeeds })) {
  test(`simulation: histories from ${what} seeds end well (node scripts/sim.ts --seed N shows one)`, (t) => {
    const bad = seeds.map((seed) => runHistory(BigInt(seed))).filter(({ failure }) => failure !== null);
    t.deepEqual(
      bad.map(({ seed, failure }) => `seed ${seed}: ${failure}`),
      [],
    );
  });
}

test('simulation: the same seed makes the same history', (t) => {
  const traced = (seed: bigint): string[] => {
    const lines: string[] = [];
    runHistory(seed, { trace: (line) => lines.push(line) });
    return lines;
  };
  const once = traced(7n);
  t.true(once.length > 1000);
  t.true(once.every((line, at, all) => at === 0 || line.slice(0, 11) >= (all[at - 1] ?? '').slice(0, 11)));
  t.is(once.join('\n'), traced(7n).join('\n'));
  t.not(once.join('\n'), traced(8n).join('\n'));
});

// The checkers are worth something only if they notice a core that breaks its promises.

type Step = (event: Event, step: (event: Event) => readonly Effect[]) => readonly Effect[];

function sabotaged(tamper: Step): MakeCore {
  return (options, ids) => {
    const core = new Core(options, ids);
    return { step: (event) => tamper(event, (given) => core.step(given)), status: () => core.status() };
  };
}

function without(effects: readonly Effect[], isUnwanted: (effect: Effect) => boolean): readonly Effect[] {
  return effects.filter((effect) => !isUnwanted(effect));
}

const sabotage: Readonly<Record<string, { readonly tamper: Step; readonly noticed: RegExp }>> = {
  'acknowledges mirrored writes it does not carry out': {
    tamper: (event, step) =>
      event.kind === 'packet' && event.packet.kind === 'write'
        ? [
            {
              kind: 'send',
              session: event.session,
              packet: { kind: 'written', seq: event.packet.seq },
              payload: null,
            },
          ]
        : step(event),
    noticed: /lacks it|no record says so/,
  },
  'answers flushes without flushing': {
    tamper: (event, step) =>
      event.kind === 'packet' && event.packet.kind === 'flush'
        ? [
            {
              kind: 'send',
              session: event.session,
              packet: { kind: 'flushed', epoch: event.packet.epoch },
              payload: null,
            },
          ]
        : step(event),
    noticed: /flush of \d+ writes/,
  },
  'does not record what is out of sync': {
    tamper: (event, step) =>
      step(event).map((effect) =>
        effect.kind === 'commit' && effect.transaction.chunks !== undefined
          ? { ...effect, transaction: { ...effect.transaction, chunks: [] } }
          : effect,
      ),
    noticed: /no record says so/,
  },
  'writes before its extents are active': {
    tamper: (event, step) =>
      step(event).map((effect) =>
        effect.kind === 'commit' && effect.transaction.activate !== undefined
          ? { ...effect, transaction: { ...effect.transaction, activate: [], deactivate: [] } }
          : effect,
      ),
    noticed: /no record says so/,
  },
  'forgets some requests': {
    tamper: (event, step) =>
      without(step(event), (effect) => effect.kind === 'complete' && effect.id % 50 === 49),
    noticed: /never ends/,
  },
  'resyncs nothing': {
    tamper: (event, step) =>
      without(step(event), (effect) => effect.kind === 'send' && effect.packet.kind === 'resyncData'),
    noticed: /never/,
  },
};

for (const [what, { tamper, noticed }] of Object.entries(sabotage)) {
  test(`simulation: a core that ${what} is found out`, (t) => {
    for (let seed = 1n; seed < 40n; seed++) {
      const { failure } = runHistory(seed, { makeCore: sabotaged(tamper) });
      if (failure === null) continue;
      t.regex(failure.message, noticed);
      return;
    }
    t.fail('no seed noticed');
  });
}
