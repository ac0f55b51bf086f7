/** Checks params, queries and bodies against the TypeBox schemas of the routes; mistakes become invalid-request. */
import fastifyPlugin from 'fastify-plugin';
import type { FastifyInstance } from 'fastify';
import { IsSchema } from 'typebox';
import { Value } from 'typebox/value';
import { invalid } from '../errors.ts';
import { checker } from '../validation.ts';

export const schemaValidation = fastifyPlugin((app: FastifyInstance, _options: object, done: () => void) => {
  app.setValidatorCompiler<unknown>(({ schema, httpPart }) => {
    if (!IsSchema(schema)) throw new Error(`the schema of ${httpPart ?? 'a route'} is not one of TypeBox`);
    const check = checker(schema);
    return (value: unknown) => {
      // A body may be left out where nothing in it is required; only texts of a URL are converted.
      const text = httpPart === 'querystring' ? flags(value) : value;
      const given = httpPart === 'body' ? (value ?? {}) : Value.Convert(schema, text);
      const checked = check(given);
      return checked.ok ? { value: checked.value } : { error: invalid(checked.mistakes) };
    };
  });
  done();
});

/** `?force` alone means `?force=true`. */
function flags(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, text]: [string, unknown]) => [key, text === '' ? 'true' : text]),
  );
}
