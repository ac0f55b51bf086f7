/** A client of the control API: requests with the token, answers parsed, failures as values. */
import { Type } from 'typebox';
import { Problem } from '../schemas/answers.ts';
import { ResourceStatus } from '../schemas/status.ts';
import { checker, type Checked } from '../validation.ts';
import { readEvents, type ServerEvent } from './event-reader.ts';

export interface Target {
  /** Of the node, when known before asking it. */
  readonly name: string | null;
  /** http://HOST:PORT. */
  readonly api: string;
  readonly token: string;
}

export type Reply =
  | { readonly ok: true; readonly status: number; readonly body: unknown }
  | { readonly ok: false; readonly problem: Problem };

export type Method = 'GET' | 'PUT' | 'POST' | 'PATCH' | 'DELETE';

/** Above the server's own limit for commands, milliseconds. */
const requestTimeoutMs = 100_000;

const checkProblem = checker(Problem);
export const checkStatus = checker(ResourceStatus);
export const checkStatuses = checker(Type.Array(ResourceStatus));

export class ApiClient {
  readonly target: Target;

  constructor(target: Target) {
    this.target = target;
  }

  async request(method: Method, path: string, body?: unknown): Promise<Reply> {
    let response: Response;
    let text: string;
    try {
      response = await fetch(new URL(path, this.target.api), {
        method,
        headers: {
          authorization: `Bearer ${this.target.token}`,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        body: body === undefined ? null : JSON.stringify(body),
        redirect: 'error',
        signal: AbortSignal.timeout(requestTimeoutMs),
      });
      text = await response.text();
    } catch (error) {
      return { ok: false, problem: unreachable(this.target.api, error) };
    }
    const parsed = parseJson(text);
    if (response.ok) return { ok: true, status: response.status, body: parsed };
    const problem = checkProblem(parsed);
    if (problem.ok) return { ok: false, problem: problem.value };
    return {
      ok: false,
      problem: local(
        `${this.target.api} answered ${response.status} and no problem`,
        'Is it a Lockstep node?',
      ),
    };
  }

  /**
   * The events, until the stream ends or `signal` aborts it. Throws ApiFailure when it cannot be had, or is torn off.
   */
  async *events(signal?: AbortSignal): AsyncGenerator<ServerEvent, void, undefined> {
    let response: Response;
    try {
      response = await fetch(new URL('/v1/events', this.target.api), {
        headers: { authorization: `Bearer ${this.target.token}`, accept: 'text/event-stream' },
        redirect: 'error',
        signal: signal ?? null,
      });
    } catch (error) {
      throw new ApiFailure(unreachable(this.target.api, error));
    }
    if (!response.ok || response.body === null) {
      const problem = checkProblem(parseJson(await response.text()));
      throw new ApiFailure(
        problem.ok ? problem.value : local(`no events: ${response.status}`, 'Is it a Lockstep node?'),
      );
    }
    yield* readEvents(this.#bytes(response.body));
  }

  async *#bytes(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    try {
      yield* body;
    } catch (error) {
      throw new ApiFailure(unreachable(this.target.api, error));
    }
  }
}

/** A problem as an exception, where there is nobody to return it to. */
export class ApiFailure extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** Throws ApiFailure when the answer is not what the schema says. */
export function expectBody<T>(checked: Checked<T>): T {
  if (checked.ok) return checked.value;
  const what = checked.mistakes.map((mistake) => mistake.message).join('; ');
  throw new ApiFailure(
    local(`the node answered something else than expected: ${what}`, 'Use the CLI of its version.'),
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}

function unreachable(api: string, error: unknown): Problem {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const why = cause instanceof Error ? cause.message || String(cause) : String(cause);
  return local(
    `no answer from ${api}: ${why}`,
    'Is the node running? Start it with "lockstep serve".',
    'unreachable',
  );
}

function local(reason: string, nextStep: string, code = 'bad-answer'): Problem {
  return {
    type: 'about:blank',
    title: 'The node could not be asked',
    status: 0,
    code,
    detail: `${reason.replace(/[.]$/, '')}. ${nextStep}`,
    nextStep,
  };
}
