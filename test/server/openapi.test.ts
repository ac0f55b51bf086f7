/** The OpenAPI document: complete, and of the version it says. */
import test from 'ava';
import { Type } from 'typebox';
import { checker } from '../../server/validation.ts';
import { errorCodes, statusOf, titleOf } from '../../server/errors.ts';
import { testApp } from '../support/test-app.ts';

/** Every operation of the contract (design, section 4). */
const operations = [
  'get /v1/node',
  'get /v1/resources',
  'put /v1/resources/{resource}',
  'get /v1/resources/{resource}',
  'patch /v1/resources/{resource}',
  'delete /v1/resources/{resource}',
  ...[
    'promote',
    'demote',
    'failover',
    'connect',
    'disconnect',
    'attach',
    'detach',
    'resync',
    'verify',
    'resize',
  ].map((verb) => `post /v1/resources/{resource}/${verb}`),
  'get /v1/resources/{resource}/decisions',
  'get /v1/events',
  'get /metrics',
  'get /healthz',
  'get /readyz',
  'get /openapi.json',
];

const Operation = Type.Object({
  operationId: Type.String(),
  summary: Type.String(),
  tags: Type.Array(Type.String(), { minItems: 1 }),
  responses: Type.Record(Type.String(), Type.Object({ description: Type.String() })),
  requestBody: Type.Optional(
    Type.Object({ content: Type.Record(Type.String(), Type.Object({ schema: Type.Object({}) })) }),
  ),
  parameters: Type.Optional(
    Type.Array(
      Type.Object({
        name: Type.String(),
        in: Type.Enum(['path', 'query', 'header', 'cookie']),
        required: Type.Optional(Type.Boolean()),
        schema: Type.Object({}),
      }),
    ),
  ),
  security: Type.Optional(Type.Array(Type.Record(Type.String(), Type.Array(Type.String())))),
});
const checkDocument = checker(
  Type.Object({
    openapi: Type.String({ pattern: '^3\\.1\\.\\d+$' }),
    info: Type.Object({ title: Type.String(), version: Type.String() }),
    paths: Type.Record(Type.String({ pattern: '^/' }), Type.Record(Type.String(), Operation)),
    components: Type.Object({
      securitySchemes: Type.Object({ token: Type.Object({ type: Type.Literal('http') }) }),
    }),
    security: Type.Array(Type.Object({ token: Type.Array(Type.String()) })),
  }),
);

test('the document is OpenAPI 3.1 and has every route, no more', async (t) => {
  const { app } = await testApp(t);
  const checked = checkDocument((await app.inject('/openapi.json')).json());
  if (!checked.ok) return t.fail(JSON.stringify(checked.mistakes));
  const { paths } = checked.value;
  const found = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`),
  );
  t.deepEqual(found.sort(), [...operations].sort());
  const ids = Object.values(paths).flatMap((methods) => Object.values(methods).map((one) => one.operationId));
  t.is(new Set(ids).size, ids.length, 'operation ids are unique');
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const names = [...path.matchAll(/\{([^}]+)\}/g)].map((match) => match[1]);
      const declared = operation.parameters?.filter((one) => one.in === 'path').map((one) => one.name) ?? [];
      t.deepEqual(declared, names, `${method} ${path}: its parameters`);
      t.true('200' in operation.responses, `${method} ${path}: success`);
      const open = ['/healthz', '/readyz', '/openapi.json'].includes(path);
      t.is(operation.security?.length === 0, open, `${method} ${path}: security`);
      if (path.startsWith('/v1/')) t.true('default' in operation.responses, `${method} ${path}: problems`);
      if (method === 'post' || method === 'put') t.truthy(operation.requestBody, `${method} ${path}: body`);
    }
  }
});

test('every error code has an HTTP status for errors and a title', (t) => {
  t.true(errorCodes.length > 30);
  t.is(new Set(errorCodes).size, errorCodes.length);
  for (const code of errorCodes) {
    t.true(statusOf(code) >= 400 && statusOf(code) <= 599, code);
    t.regex(titleOf(code), /^[A-Z]/);
  }
});
