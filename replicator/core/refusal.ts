/**
 * Refusals are values: a command that cannot be carried out says why, and what to do next. Every code is
 * stable; clients of the control API match on it.
 */
export const refusalCodes = [
  'split-brain',
  'peer-may-be-primary',
  'peer-is-primary',
  'device-in-use',
  'not-up-to-date',
  'not-primary',
  'not-connected',
  'not-mirrored',
  'already-connected',
  'already-attached',
  'already-detached',
  'discard-needs-secondary',
  'last-copy',
  'no-disk',
  'resync-running',
  'no-resync',
  'verify-running',
  'no-verify',
  'busy',
  'suspended',
  'not-supported',
  'cannot-shrink',
  'backing-missing',
  'backing-too-small',
  'backing-not-ours',
  'backing-in-use',
  'backing-failed',
  'metadata-foreign',
  'metadata-newer',
  'metadata-corrupt',
  'metadata-in-use',
  'metadata-failed',
  'address-in-use',
  'address-unusable',
  'tls-unusable',
  'shutting-down',
] as const;
export type RefusalCode = (typeof refusalCodes)[number];

export interface Refusal {
  readonly code: RefusalCode;
  /** One sentence: what was refused and why, with the facts it rests on. */
  readonly reason: string;
  /** One sentence: what the operator can do now. */
  readonly nextStep: string;
}

export type CommandResult =
  | {
      readonly ok: true;
      /** What was done, or would be done for a dry run, in one sentence. */
      readonly message: string;
      /** What the operator gave up by forcing; empty without force. */
      readonly givenUp: readonly string[];
    }
  | { readonly ok: false; readonly refusal: Refusal };

export function refuse(code: RefusalCode, reason: string, nextStep: string): CommandResult {
  return { ok: false, refusal: { code, reason, nextStep } };
}

export function done(message: string, givenUp: readonly string[] = []): CommandResult {
  return { ok: true, message, givenUp };
}
