/** The supervisor with real worker threads whose resources are fakes. */
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import { CommandTimeout } from '../../server/data-plane/data-plane.ts';
import { Supervisor, type SupervisorOptions } from '../../server/data-plane/supervisor.ts';
import { defineResource } from '../../server/definition.ts';
import type { ResourceDefinition } from '../../server/schemas/resource-definition.ts';
import type { ResourceStatus } from '../../server/schemas/status.ts';
import { mirroredBody, temporaryDirectory } from '../support/test-app.ts';

function supervised(t: ExecutionContext, options: Partial<SupervisorOptions> = {}) {
  let died: (message: string) => void = () => undefined;
  const fatal = new Promise<string>((resolve) => {
    died = resolve;
  });
  const plane = new Supervisor({
    nodeName: 'alpha',
    dataDirectory: temporaryDirectory(t),
    dataPlanesMax: 2,
    log: pino({ level: 'silent' }),
    fatal: (message) => died(message),
    entry: new URL('../support/fake-worker.ts', import.meta.url),
    ...options,
  });
  const seen: { name: string; status: ResourceStatus | null }[] = [];
  plane.onStatus((name, status) => seen.push({ name, status }));
  return { plane, fatal, seen };
}

function definition(name: string): ResourceDefinition {
  const checked = defineResource(name, mirroredBody, 'alpha');
  if (!checked.ok) throw new Error('the test body is not valid');
  return checked.value;
}

const promote = { kind: 'promote', force: false, dryRun: false } as const;

test.serial('start, command, decisions, status and stop go through a worker', async (t) => {
  const { plane, seen } = supervised(t);
  t.deepEqual(await plane.start(definition('r0')), { ok: true });
  t.is(seen[0]?.status?.diskState, 'Attaching');
  t.is(plane.status('r0')?.diskState, 'UpToDate');
  t.deepEqual(await plane.command('r0', promote), { ok: true, message: 'Did promote.', givenUp: [] });
  t.is((await plane.refresh('r0'))?.role, 'Primary');
  t.is((await plane.decisions('r0'))[0]?.rule, 'reconnected');
  t.is(await plane.configure(definition('r0')), 'applied');
  await plane.stop('r0');
  t.is(plane.status('r0'), null);
  t.deepEqual(seen.at(-1), { name: 'r0', status: null });
  await plane.close();
});

test.serial('a status change in the worker is pushed', async (t) => {
  const { plane } = supervised(t);
  await plane.start(definition('r0'));
  const primary = new Promise<void>((resolve) => {
    plane.onStatus((_name, status) => {
      if (status?.role === 'Primary') resolve();
    });
  });
  await plane.command('r0', promote);
  await primary;
  t.pass();
  await plane.close();
});

test.serial('a refused start is answered and shown', async (t) => {
  const { plane } = supervised(t);
  t.like(await plane.start(definition('refused')), { ok: false, refusal: { code: 'backing-missing' } });
  t.is(plane.status('refused')?.error?.code, 'backing-missing');
  t.like(await plane.command('refused', { kind: 'attach' }), { ok: false });
  await plane.close();
});

test.serial('a command without an answer ends in CommandTimeout, and others go on', async (t) => {
  const { plane } = supervised(t, { commandTimeoutMs: 50, dataPlanesMax: 1 });
  await plane.start(definition('hung'));
  await plane.start(definition('r0'));
  await t.throwsAsync(plane.command('hung', { kind: 'disconnect' }), { instanceOf: CommandTimeout });
  t.is((await plane.refresh('r0'))?.name, 'r0');
  await plane.close();
});

test.serial('what a look at the counters answers is the last status from then on', async (t) => {
  const { plane } = supervised(t, { dataPlanesMax: 1 });
  await plane.start(definition('r0'));
  // What the start itself reports has arrived after this.
  for (let round = 0; round < 3; round++) await plane.decisions('r0');
  const before = plane.status('r0');
  const now = await plane.refresh('r0', 60_000);
  t.not(now, before);
  t.is(plane.status('r0'), now);
  await plane.close();
});

test.serial('a panic is fatal at once', async (t) => {
  const { plane, fatal } = supervised(t);
  await plane.start(definition('panics'));
  void plane.command('panics', promote);
  t.is(await fatal, 'panics: a promise cannot be kept');
  // The thread of the panic stands still; ending it is what the end of the process does.
  await plane.terminate();
});

test.serial('a worker that fails is fatal', async (t) => {
  const { plane, fatal } = supervised(t);
  await plane.start(definition('throws'));
  void plane.command('throws', promote);
  t.regex(await fatal, /a bug/);
  await plane.terminate();
});

test.serial('a message that does not fit is fatal', async (t) => {
  const { plane, fatal } = supervised(t);
  await plane.start(definition('babbles'));
  void plane.command('babbles', promote);
  t.regex(await fatal, /does not fit/);
  await plane.terminate();
});

test.serial(
  'a command that comes behind the end of its resource is refused, and the process lives',
  async (t) => {
    const { plane, fatal } = supervised(t, { dataPlanesMax: 1 });
    await plane.start(definition('r0'));
    await plane.start(definition('r1'));
    const end = plane.stop('r0');
    const late = Promise.all([plane.command('r0', promote), plane.configure(definition('r0'))]);
    const [answer, applied] = await Promise.race([late, fatal.then((why): never => t.fail(why))]);
    t.like(answer, { ok: false, refusal: { code: 'shutting-down' } });
    t.is(applied, 'next-start');
    await end;
    t.like(await plane.command('r0', promote), { ok: false, refusal: { code: 'shutting-down' } });
    t.deepEqual(await plane.decisions('r0'), []);
    t.like(await plane.command('r1', promote), { ok: true });
    await plane.close();
  },
);

test.serial('closing waits for the end of a resource that is under way already', async (t) => {
  const logged: string[] = [];
  const log = pino({}, { write: (line: string) => void logged.push(line) });
  const { plane } = supervised(t, { log });
  await plane.start(definition('lingers'));
  void plane.stop('lingers');
  await plane.close();
  t.regex(logged.join(''), /ended cleanly/);
});

test.serial('after close everything is refused', async (t) => {
  const { plane } = supervised(t);
  await plane.start(definition('r0'));
  await plane.close();
  t.like(await plane.start(definition('r1')), { refusal: { code: 'shutting-down' } });
  t.like(await plane.command('r0', promote), { refusal: { code: 'shutting-down' } });
});

test.serial('resources go to an idle worker, then a new one, then the least loaded', async (t) => {
  const { plane } = supervised(t, { dataPlanesMax: 2 });
  for (const name of ['a', 'b', 'c', 'd']) await plane.start(definition(name));
  t.deepEqual(plane.loads(), [2, 2]);
  await plane.stop('a');
  await plane.stop('c');
  await plane.start(definition('e'));
  t.deepEqual(plane.loads(), [1, 2]);
  await plane.close();
});
