/** The command line: finds the verb, reads its arguments, asks the node, prints. Exit status 0 done, 1 failed, 2 misuse. */
import { readFileSync } from 'node:fs';
import {
  ApiClient,
  ApiFailure,
  checkStatus,
  checkStatuses,
  expectBody,
  type Reply,
  type Target,
} from './cli/api-client.ts';
import { flagLines, readArguments, type Arguments, type FlagSpec } from './cli/arguments.ts';
import { bench } from './cli/bench.ts';
import { followEvents } from './cli/follow-events.ts';
import { runCheckoutScript, type CheckoutScript } from './cli/checkout-script.ts';
import { answerText } from './cli/answer-text.ts';
import { simulate } from './cli/simulate.ts';
import { statusTree } from './cli/status-tree.ts';
import { findTargets } from './cli/targets.ts';
import { torture } from './cli/torture.ts';
import { flagsOf, verbs, type Verb } from './cli/verbs.ts';
import { readConfig, settingsHelp, UsageError } from './config.ts';
import { didYouMean } from './nearest.ts';
import { NodeStoreError } from './node-store.ts';
import type { Problem } from './schemas/answers.ts';
import { StartError } from './start-error.ts';

/** The verbs that are no call of the control API. */
const ownVerbs = ['serve', 'pair', 'torture', 'sim', 'bench'];

/** Answers the exit status, or null when the process goes on (serve, pair). */
export async function runCommandLine(args: readonly string[]): Promise<number | null> {
  const [verb, ...rest] = args;
  try {
    if (verb === undefined || verb === 'help' || verb === '--help' || verb === '-h') {
      print(overview());
      return verb === undefined ? 2 : 0;
    }
    if (verb === '--version' || verb === 'version') {
      print(packageVersion());
      return 0;
    }
    if (verb === 'serve') return await runServe(rest);
    if (verb === 'pair') return await runPair(rest);
    if (verb === torture.verb) return await runScript(torture, rest);
    if (verb === simulate.verb) return await runScript(simulate, rest);
    if (verb === bench.verb) return await runScript(bench, rest);
    const known = Object.hasOwn(verbs, verb) ? verbs[verb] : undefined;
    if (!known)
      throw new UsageError(
        `there is no verb "${verb}"${didYouMean(verb, [...Object.keys(verbs), ...ownVerbs])}`,
      );
    return await runVerb(verb, known, rest);
  } catch (error) {
    return report(verb ?? '', error);
  }
}

async function runServe(args: readonly string[]): Promise<number | null> {
  if (wantsHelp(args)) {
    print(
      `lockstep serve [flags]: run a node\n\n${settingsHelp().join('\n')}\n\nConfiguration file keys: the same in camelCase, and "resources".`,
    );
    return 0;
  }
  const config = readConfig(args, process.env);
  const { shareMallocArenas } = await import('./malloc.ts');
  shareMallocArenas();
  const { serve } = await import('./serve.ts');
  await serve(config, packageVersion());
  return null;
}

async function runPair(args: readonly string[]): Promise<number | null> {
  const { pairFlags, runPair: run } = await import('./pair.ts');
  if (wantsHelp(args)) {
    print(usage('pair', 'Two nodes on loopback with one mirrored resource, ready to attach', [], pairFlags));
    return 0;
  }
  const parsed = readArguments('pair', args, pairFlags);
  expectWords('pair', [], parsed.words);
  return run(parsed);
}

async function runScript(script: CheckoutScript, args: readonly string[]): Promise<number> {
  const { verb, summary, flags } = script;
  if (wantsHelp(args)) {
    print(usage(verb, summary, [], flags));
    return 0;
  }
  const parsed = readArguments(verb, args, flags);
  expectWords(verb, [], parsed.words);
  return runCheckoutScript(script, parsed);
}

async function runVerb(name: string, verb: Verb, args: readonly string[]): Promise<number> {
  // A reader that has seen enough, as in "lockstep status | head".
  process.stdout.on('error', () => process.exit(1));
  const parsed = readArguments(name, args, flagsOf(verb));
  if (parsed.has('help')) {
    print(usage(name, verb.summary, verb.words, flagsOf(verb)));
    return 0;
  }
  expectWords(name, verb.words, parsed.words);
  const targets = findTargets({
    api: parsed.text('api'),
    token: parsed.text('token'),
    dataDirectory: parsed.text('data-dir'),
  });
  if (targets.length > 1 && verb.everyNode !== true) {
    const list = targets.map((target) => `  ${target.name ?? ''}  --api ${target.api}`).join('\n');
    throw new UsageError(`${name}: several nodes run here; say which one:\n${list}`);
  }
  if (name === 'events')
    return followEvents(new ApiClient(targets[0]), parsed.words[0] ?? '', parsed.has('json'));
  const call = verb.call(parsed.words[0] ?? '', parsed);
  const replies = await Promise.all(
    targets.map(async (target) => ({
      target,
      reply: await new ApiClient(target).request(call.method, call.path, call.body),
    })),
  );
  return printReplies(name, replies, parsed);
}

function printReplies(
  verb: string,
  replies: readonly { target: Target; reply: Reply }[],
  parsed: Arguments,
): number {
  let exitStatus = 0;
  for (const { target, reply } of replies) {
    const several = replies.length > 1;
    if (several && !parsed.has('json')) print(`node ${target.name ?? ''} ${target.api}`);
    if (!reply.ok) {
      if (parsed.has('json')) print(JSON.stringify(reply.problem));
      else complain(verb, reply.problem.detail);
      exitStatus = Math.max(exitStatus, exitStatusOf(reply.problem));
    } else if (parsed.has('json')) {
      print(
        JSON.stringify(several ? { node: target.name, api: target.api, resources: reply.body } : reply.body),
      );
    } else {
      print(replyText(verb, reply.body));
    }
  }
  return exitStatus;
}

function replyText(verb: string, body: unknown): string {
  if (verb !== 'status' && verb !== 'create') return answerText(verb, body);
  if (!Array.isArray(body)) return statusTree(expectBody(checkStatus(body)));
  const all = expectBody(checkStatuses(body));
  return all.length === 0 ? 'no resources' : all.map(statusTree).join('\n');
}

function expectWords(verb: string, wanted: readonly string[], given: readonly string[]): void {
  const required = wanted.filter((word) => !word.startsWith('['));
  const missing = required[given.length];
  if (missing !== undefined) throw new UsageError(`${verb}: ${missing} is missing`);
  const empty = wanted[given.indexOf('')];
  if (empty !== undefined) throw new UsageError(`${verb}: ${empty} is empty`);
  const extra = given[wanted.length];
  if (extra !== undefined) throw new UsageError(`${verb}: "${extra}" is one argument too many`);
}

function report(verb: string, error: unknown): number {
  if (error instanceof UsageError) {
    const known = Object.hasOwn(verbs, verb) || ownVerbs.includes(verb);
    complain('', `${error.message}\nSee "lockstep ${known ? `${verb} ` : ''}--help".`);
    return 2;
  }
  if (error instanceof ApiFailure) {
    complain(verb, error.problem.detail);
    return exitStatusOf(error.problem);
  }
  if (error instanceof NodeStoreError || error instanceof StartError) {
    complain(verb, error.message);
    return 1;
  }
  // What the system refused (a directory that cannot be written, say) needs no trace; a bug does.
  const system = error instanceof Error && 'code' in error;
  complain(
    verb,
    error instanceof Error ? (system ? error.message : (error.stack ?? error.message)) : String(error),
  );
  return 1;
}

function exitStatusOf(problem: Problem): number {
  return problem.code === 'invalid-request' ? 2 : 1;
}

function overview(): string {
  const width = 12;
  const rows = [
    ['serve', 'Run a node'],
    ['pair', 'Two nodes on loopback with one mirrored resource, ready to attach'],
    ...Object.entries(verbs).map(([name, verb]) => [name, verb.summary]),
    [torture.verb, torture.summary],
    [simulate.verb, simulate.summary],
    [bench.verb, bench.summary],
  ];
  return [
    'lockstep: replicated block devices',
    '',
    ...rows.map(([name = '', summary = '']) => `  ${name.padEnd(width)}${summary}`),
    '',
    '"lockstep VERB --help" tells more. Exit status: 0 done, 1 failed, 2 misuse.',
  ].join('\n');
}

function usage(
  name: string,
  summary: string,
  words: readonly string[],
  flags: Readonly<Record<string, FlagSpec>>,
): string {
  return [`lockstep ${[name, ...words].join(' ')} [flags]: ${summary}`, '', ...flagLines(flags)].join('\n');
}

function wantsHelp(args: readonly string[]): boolean {
  return args.includes('--help') || args.includes('-h');
}

function packageVersion(): string {
  const text: unknown = JSON.parse(readFileSync(packageFile(), 'utf8'));
  if (typeof text === 'object' && text !== null && 'version' in text) return String(text.version);
  return 'unknown';
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

function complain(verb: string, text: string): void {
  process.stderr.write(`lockstep${verb === '' ? '' : ` ${verb}`}: ${text}\n`);
}

/** Beside server/ in a checkout, one level higher in a package, whose JavaScript is under dist/. */
function packageFile(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? '../package.json' : '../../package.json', import.meta.url);
}
