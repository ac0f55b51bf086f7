/** The data-plane thread: hosts its resources and answers the main thread, a request at a time per resource. */
import type { MessagePort } from 'node:worker_threads';
import { saveCompiled } from '../compile-cache.ts';
import { beingStopped } from './data-plane.ts';
import type { HostParts } from './host-parts.ts';
import type { FromWorker, ToWorker } from './protocol.ts';
import { ResourceHost } from './resource-host.ts';
import type { WorkerData } from './worker-data.ts';

/** How long the main thread is given to end the process after a panic, milliseconds. */
const panicGraceMs = 30_000;

export function runWorker(port: MessagePort, data: WorkerData, parts: HostParts): void {
  const hosts = new Map<string, ResourceHost>();
  /** Ends that are under way: whoever asks for the same end hears of it when it has come. */
  const stops = new Map<string, Promise<void>>();
  const send = (message: FromWorker) => port.postMessage(message);

  const panic = (resource: string, text: string): void => {
    send({ kind: 'panic', resource, text });
    // This thread stops here: not one acknowledgement more. The main thread ends the process on the message.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, panicGraceMs);
    process.kill(process.pid, 'SIGKILL');
  };

  const create = (definition: Extract<ToWorker, { kind: 'start' }>['definition']): ResourceHost => {
    const { name } = definition;
    const host = new ResourceHost(definition, {
      ...data,
      parts,
      report: (status) => {
        if (hosts.get(name) === host) send({ kind: 'statusChanged', status });
      },
      log: (level, text) => send({ kind: 'log', level, resource: name, text }),
      panic: (text) => panic(name, text),
    });
    hosts.set(name, host);
    return host;
  };

  const stop = (name: string): Promise<void> => {
    const host = hosts.get(name);
    if (!host) return stops.get(name) ?? Promise.resolve();
    hosts.delete(name);
    const end = host.stop().finally(() => stops.delete(name));
    stops.set(name, end);
    return end;
  };

  const answer = async (message: ToWorker): Promise<void> => {
    const { id } = message;
    switch (message.kind) {
      case 'start': {
        const host = hosts.get(message.definition.name) ?? create(message.definition);
        const refusal = await host.start();
        send({ kind: 'statusChanged', status: host.status() });
        send({ kind: 'started', id, refusal });
        // By now this thread has loaded what it needs.
        return saveCompiled();
      }
      case 'stop': {
        await stop(message.name);
        return send({ kind: 'stopped', id });
      }
      case 'command': {
        // Commands do not wait for the end of a resource, which may take seconds: one may come behind it.
        const result =
          (await hosts.get(message.name)?.command(message.command)) ?? beingStopped(message.name);
        const plain = result.ok ? { ...result, givenUp: [...result.givenUp] } : result;
        return send({ kind: 'commandDone', id, result: plain });
      }
      case 'configure':
        return send({
          kind: 'configured',
          id,
          applied: hosts.get(message.definition.name)?.configure(message.definition) ?? 'next-start',
        });
      case 'status':
        return send({ kind: 'statusIs', id, status: hosts.get(message.name)?.status() ?? null });
      case 'decisions': {
        const decisions = hosts.get(message.name)?.decisions() ?? [];
        return send({
          kind: 'decisionsAre',
          id,
          decisions: decisions.map((d) => ({ ...d, inputs: { ...d.inputs } })),
        });
      }
      default:
        return message satisfies never;
    }
  };

  port.on('message', (message: ToWorker) => {
    // A rejection is a bug; unhandled it ends this thread, and with it the process.
    void answer(message);
  });
}
