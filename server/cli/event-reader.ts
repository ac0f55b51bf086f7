/** Reads Server-Sent Events from a byte stream (HTML standard, "Server-sent events", interpreting an event stream). */

export interface ServerEvent {
  readonly event: string;
  readonly id: string;
  readonly data: string;
}

/** A line longer than this ends the stream with an error; a status is a few KiB. Characters. */
const lineMax = 4 * 1024 * 1024;

export async function* readEvents(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<ServerEvent> {
  const decoder = new TextDecoder();
  let rest = '';
  let event = 'message';
  let id = '';
  let data: string[] = [];
  for await (const chunk of bytes) {
    rest += decoder.decode(chunk, { stream: true });
    if (rest.length > lineMax) throw new Error('an event stream with a line without end');
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    for (const raw of lines) {
      const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
      if (line === '') {
        if (data.length > 0) yield { event, id, data: data.join('\n') };
        event = 'message';
        data = [];
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'event') event = value;
      else if (field === 'id') id = value;
      else if (field === 'data') data.push(value);
    }
  }
}
