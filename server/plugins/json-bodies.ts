/** Bodies are JSON or empty, whatever content type an empty one carries. */
import fastifyPlugin from 'fastify-plugin';
import type { FastifyInstance } from 'fastify';
import { ApiError } from '../errors.ts';

export const jsonBodies = fastifyPlugin((app: FastifyInstance, _options: object, done: () => void) => {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser<string>('application/json', { parseAs: 'string' }, (_request, text, parsed) => {
    if (text.trim() === '') {
      parsed(null, undefined);
      return;
    }
    try {
      parsed(null, JSON.parse(text));
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      parsed(new ApiError('invalid-request', `the request body is not valid JSON: ${why}`, 'Correct it.'));
    }
  });
  app.addContentTypeParser<string>('*', { parseAs: 'string' }, (request, text, parsed) => {
    if (text === '') {
      parsed(null, undefined);
      return;
    }
    const type = request.headers['content-type'] ?? 'nothing';
    parsed(
      new ApiError(
        'unsupported-media-type',
        `the request body is declared as ${type}`,
        'Send JSON with "content-type: application/json".',
      ),
    );
  });
  done();
});
