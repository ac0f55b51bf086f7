/** `lockstep events`: a line per change, until the stream ends. */
import { Type } from 'typebox';
import { ResourceStatus } from '../schemas/status.ts';
import { checker } from '../validation.ts';
import { expectBody, type ApiClient } from './api-client.ts';
import { statusLine } from './status-tree.ts';

const checkChange = checker(Type.Object({ resource: Type.String(), status: Type.Optional(ResourceStatus) }));

/** `resource` empty: all. Answers 1 when the node ends the stream: following was not meant to end. */
export async function followEvents(client: ApiClient, resource: string, json: boolean): Promise<number> {
  for await (const { event, data } of client.events()) {
    const change = expectBody(checkChange(JSON.parse(data)));
    if (resource !== '' && change.resource !== resource) continue;
    const text = change.status ? statusLine(change.status) : `${change.resource} removed`;
    process.stdout.write(`${json ? JSON.stringify({ event, ...change }) : text}\n`);
  }
  process.stderr.write('lockstep events: the node has ended the stream.\n');
  return 1;
}
