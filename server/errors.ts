/**
 * Every error the control API can answer: one list of stable codes with their HTTP status and title. Refusals of
 * the replication engine keep their own codes (core/refusal.ts) and join the list here.
 */
import createError from '@fastify/error';
import { refusalCodes, type Refusal, type RefusalCode } from '../replicator/core/refusal.ts';
import type { Problem } from './schemas/answers.ts';
import type { Mistake } from './validation.ts';

const apiErrors = {
  'invalid-request': [400, 'The request is not valid'],
  unauthorized: [401, 'The request carries no valid token'],
  'not-found': [404, 'There is no such thing'],
  'already-exists': [409, 'It exists, and is different'],
  'payload-too-large': [413, 'The request body is too large'],
  'unsupported-media-type': [415, 'The request body is not JSON'],
  'host-not-allowed': [421, 'The Host header names another machine'],
  'internal-error': [500, 'The node failed to answer'],
  'not-ready': [503, 'The node is not ready'],
  'command-timeout': [504, 'The data plane did not answer in time'],
} as const satisfies Record<string, readonly [number, string]>;

export type ApiErrorCode = keyof typeof apiErrors;
export type ErrorCode = ApiErrorCode | RefusalCode;

/** Refusals are conflicts with the present state, unless listed. */
const refusalStatus: Partial<Record<RefusalCode, number>> = { 'not-supported': 501, 'shutting-down': 503 };

/** All codes, for the OpenAPI document and the tests. */
export const errorCodes: readonly ErrorCode[] = [...apiErrorCodes(), ...refusalCodes];

export function statusOf(code: ErrorCode): number {
  return isApiError(code) ? apiErrors[code][0] : (refusalStatus[code] ?? 409);
}

export function titleOf(code: ErrorCode): string {
  return isApiError(code) ? apiErrors[code][1] : `Refused: ${code.replaceAll('-', ' ')}`;
}

/** An error on its way to the error handler, which turns it into problem+json. */
const Carrier = createError<[string]>('LOCKSTEP_API', '%s');

export class ApiError extends Carrier {
  readonly problem: Problem;

  constructor(code: ErrorCode, reason: string, nextStep: string, mistakes?: readonly Mistake[]) {
    super(reason);
    this.problem = problem(code, reason, nextStep, mistakes);
    this.statusCode = this.problem.status;
  }
}

export function refusalError(refusal: Refusal): ApiError {
  return new ApiError(refusal.code, refusal.reason, refusal.nextStep);
}

export function invalid(mistakes: readonly Mistake[]): ApiError {
  const reason = sentence(mistakes.map((mistake) => mistake.message).join('; '));
  return new ApiError(
    'invalid-request',
    reason,
    'Correct the request; /docs shows what each one takes.',
    mistakes,
  );
}

export function problem(
  code: ErrorCode,
  reason: string,
  nextStep: string,
  mistakes?: readonly Mistake[],
): Problem {
  return {
    // No page describes the problem, so the type is the blank one and `code` tells (RFC 9457, section 4.2.1).
    type: 'about:blank',
    title: titleOf(code),
    status: statusOf(code),
    code,
    detail: `${sentence(reason)} ${capitalised(sentence(nextStep))}`.trim(),
    nextStep,
    ...(mistakes ? { errors: mistakes.map(({ path, message }) => ({ path, message })) } : {}),
  };
}

function sentence(text: string): string {
  if (text === '') return '';
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** The reason may begin with a name, which is as it is; the next step begins with a verb. */
function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function isApiError(code: ErrorCode): code is ApiErrorCode {
  return Object.hasOwn(apiErrors, code);
}

function apiErrorCodes(): readonly ApiErrorCode[] {
  return Object.keys(apiErrors).filter((code): code is ApiErrorCode => Object.hasOwn(apiErrors, code));
}
