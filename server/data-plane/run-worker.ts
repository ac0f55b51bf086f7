/** The data-plane thread: hosts its resources and answers the main thread, a request at a time per resource. */
import type { MessagePort } from 'node:worker_threads';
import { saveCompiled } from '../compile-cache.ts';
import type { HostParts } from './host-parts.ts';
import type { FromWorker, ToWorker } from './protocol.ts';
import { ResourceHost } from './resource-host.ts';
import type { WorkerData } from './worker-data.ts';

/** How long the main thread is given to end the process after a panic, milliseconds. */
const panicGraceMs = 30_000;

export function runWorker(port: MessagePort, data: WorkerData, parts: HostParts): void {
  const hosts = new Map<string, ResourceHost>();
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
        const host = hosts.get(message.name);
        hosts.delete(message.name);
        await host?.stop();
        return send({ kind: 'stopped', id });
      }
      case 'command': {
        const result = await hostOf(hosts, message.name).command(message.command);
        const plain = result.ok ? { ...result, givenUp: [...result.givenUp] } : result;
        return send({ kind: 'commandDone', id, result: plain });
      }
      case 'configure':
        return send({
          kind: 'configured',
          id,
          applied: hostOf(hosts, message.definition.name).configure(message.definition),
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

function hostOf(hosts: ReadonlyMap<string, ResourceHost>, name: string): ResourceHost {
  const host = hosts.get(name);
  if (!host) throw new Error(`this data plane has no resource ${name}`);
  return host;
}
