/** Every error leaves as RFC 9457 problem+json with a stable code, whoever raised it. */
import fastifyPlugin from 'fastify-plugin';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ApiError, problem } from '../errors.ts';
import type { Problem } from '../schemas/answers.ts';

export const problems = fastifyPlugin((app: FastifyInstance, _options: object, done: () => void) => {
  app.setErrorHandler<FastifyError>(answerError);
  app.setNotFoundHandler((request, reply) =>
    send(
      request,
      reply,
      problem(
        'not-found',
        `there is no ${request.method} ${pathOf(request)}`,
        'See /docs for what there is.',
      ),
    ),
  );
  done();
});

/** Also for what the router refuses before any handler is reached: a path that cannot be decoded, or is too long. */
export function answerError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  return send(request, reply, toProblem(error, request));
}

function toProblem(error: FastifyError, request: FastifyRequest): Problem {
  if (error instanceof ApiError) return error.problem;
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return problem('payload-too-large', 'the request body is larger than 64 KiB', 'Send less.');
  }
  if (error.code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
    return problem(
      'unsupported-media-type',
      'the request body is not declared as JSON',
      'Send it with "content-type: application/json".',
    );
  }
  const status = error.statusCode ?? 500;
  if (status >= 400 && status < 500) {
    return problem('invalid-request', error.message, 'Correct the request; /docs shows what each one takes.');
  }
  if (status === 503) return problem('not-ready', 'the node is shutting down', 'Ask again when it is back.');
  // What went wrong inside is for the log: it may quote what nobody outside should see.
  request.log.error({ err: error }, 'a request failed');
  return problem(
    'internal-error',
    'the node failed to answer this request',
    `Its log tells why, under request id ${request.id}.`,
  );
}

function send(request: FastifyRequest, reply: FastifyReply, body: Problem): FastifyReply {
  if (body.status === 401) void reply.header('www-authenticate', 'Bearer realm="lockstep"');
  return reply
    .code(body.status)
    .type('application/problem+json')
    .serializer(JSON.stringify)
    .send({ ...body, instance: pathOf(request) });
}

function pathOf(request: FastifyRequest): string {
  return request.url.split('?', 1)[0] ?? request.url;
}
