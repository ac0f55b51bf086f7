/** Decisions are kept: what went in, which named rule answered, what came of it (shown by GET .../decisions). */
export interface Decision {
  readonly kind: 'handshake' | 'promotion' | 'resync' | 'verify' | 'peer-loss' | 'disk';
  /** The clock of the caller, milliseconds. */
  readonly atMs: number;
  readonly rule: string;
  readonly result: string;
  /** Flat facts, already printable. */
  readonly inputs: Readonly<Record<string, string | number | boolean>>;
}
