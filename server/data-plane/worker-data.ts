/** What a data-plane thread is started with. */

export interface WorkerData {
  readonly nodeName: string;
  readonly dataDirectory: string;
}

/** Throws TypeError. By hand: a schema library in each thread costs twenty megabytes and a tenth of a second. */
export function parseWorkerData(value: unknown): WorkerData {
  const fields = new Map<string, unknown>(Object.entries(value ?? {}));
  const text = (name: keyof WorkerData): string => {
    const field = fields.get(name);
    if (typeof field !== 'string') throw new TypeError(`a data plane was started without ${name}`);
    return field;
  };
  return { nodeName: text('nodeName'), dataDirectory: text('dataDirectory') };
}
