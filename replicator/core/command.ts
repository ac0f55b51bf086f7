/** Every command is answered within about this time, if only with what it still waits for (deadlines.ts). */
export const commandDeadlineMs = 20_000;

/** What an operator can ask of a resource; one member per verb of the control API. */
export type Command =
  | { readonly kind: 'promote'; readonly force: boolean; readonly dryRun: boolean }
  /** `force` fails what clients still have in flight and disconnects them. */
  | { readonly kind: 'demote'; readonly force: boolean; readonly dryRun: boolean }
  /** On the node to take over. `force` also covers clients attached to the old Primary and a peer out of reach. */
  | { readonly kind: 'failover'; readonly force: boolean; readonly dryRun: boolean }
  | { readonly kind: 'connect'; readonly discardMyData: boolean; readonly dryRun: boolean }
  | { readonly kind: 'disconnect' }
  | { readonly kind: 'detach'; readonly force: boolean }
  /** The shell has opened the backing device and its metadata again; the core re-negotiates. */
  | { readonly kind: 'attach' }
  | { readonly kind: 'resync'; readonly action: 'pause' | 'resume' | 'invalidate' | 'invalidate-peer' }
  /** `repair`: what turns out to differ is copied again; otherwise it is only reported. */
  | { readonly kind: 'verify'; readonly action: 'start' | 'stop'; readonly repair: boolean }
  | { readonly kind: 'resize'; readonly sizeBytes: number }
  /** SIGTERM: demote, flush, say goodbye, record a clean stop. Always ends with `stopped`. */
  | { readonly kind: 'stop' };
