/** The checkers are worth something only if they notice a core that breaks its promises; and what they notice is shrunk. */
import test from 'ava';
import { Core } from '../../replicator/core/core.ts';
import type { Effect } from '../../replicator/core/effect.ts';
import type { Event } from '../../replicator/core/event.ts';
import { formatShortening, parseShortening } from './plan.ts';
import { runHistory } from './run.ts';
import { shrink } from './shrink.ts';
import type { MakeCore } from './sim-node.ts';

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

test('shrink: a history that ends badly becomes a shorter one that ends badly alike, always the same', (t) => {
  const makeCore = sabotaged(
    sabotage['answers flushes without flushing']?.tamper ?? ((event, step) => step(event)),
  );
  const seeds = Array.from({ length: 20 }, (_, index) => BigInt(index + 1));
  const bad = seeds
    .map((seed) => runHistory(seed, { makeCore }))
    .find(({ failure, faults }) => failure !== null && faults.length >= 8);
  if (bad === undefined) return t.fail('no seed with enough faults before its failure');
  const shrunk = shrink(bad.seed, { makeCore });
  if (shrunk === null) return t.fail('nothing to shrink');
  t.true(shrunk.result.faults.length < bad.faults.length);
  t.is(shrunk.result.failure?.checker, bad.failure?.checker);
  t.deepEqual(shrink(bad.seed, { makeCore })?.shortening, shrunk.shortening);
  const shortening = parseShortening(formatShortening(shrunk.shortening));
  if (shortening === null) return t.fail('its text cannot be read');
  t.deepEqual(runHistory(bad.seed, { makeCore, shortening }), shrunk.result);
});

test('shrink: a history that ends well is left alone', (t) => {
  t.is(shrink(1n), null);
});

test('shrink: what is no text of a shortening is refused', (t) => {
  for (const text of ['keep', 'keep=a', 'ms=', 'ms=-1', 'workers=1.5', 'what=1'])
    t.is(parseShortening(text), null, text);
  t.deepEqual(parseShortening('keep=;ms=5;workers=2'), { keep: [], faultsMs: 5, workers: 2 });
  t.deepEqual(parseShortening(''), { keep: null, faultsMs: null, workers: null });
});
