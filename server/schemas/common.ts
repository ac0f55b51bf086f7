/**
 * Building bricks of the API's schemas. Each schema is at once the TypeScript type, the validation and the
 * OpenAPI text, so its description is written to stand in an error: "KEY must be <description>".
 */
import { Type } from 'typebox';
import { endpointPattern } from '../endpoint.ts';
import { sizePattern } from '../size.ts';

export const namePattern = '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$';

export const Name = Type.String({
  pattern: namePattern,
  description: 'a name of 1 to 63 letters, digits, ".", "_" or "-" that begins with a letter or digit',
});

export const EndpointText = Type.String({
  pattern: endpointPattern,
  maxLength: 300,
  description: 'HOST:PORT, an IPv6 host in brackets',
});

export const SizeInput = Type.Union(
  [Type.Integer({ minimum: 1 }), Type.String({ pattern: sizePattern, maxLength: 32 })],
  {
    description: 'a positive number of bytes, or a text like "10GiB", that is a multiple of 4096 bytes',
    examples: ['10GiB', 1073741824],
  },
);

export const AbsolutePath = Type.String({
  pattern: '^/[^\\u0000]+$',
  maxLength: 4096,
  description: 'an absolute path',
});

export const GenerationText = Type.String({
  pattern: '^[0-9a-f]{16}$',
  description: 'a generation identifier, 16 hexadecimal digits; zeroes when there is none',
});

export const Bytes = Type.Integer({ minimum: 0, description: 'a number of bytes' });
export const Count = Type.Integer({ minimum: 0, description: 'a count' });

/** Every object is closed: an unknown key is a mistake to report, never to ignore. */
export const closed = { additionalProperties: false } as const;

export const ResourceParams = Type.Object({ resource: Name }, closed);

/** `?flag`, `?flag=true` and `?flag=false`. */
export const QueryFlag = Type.Optional(Type.Boolean({ description: 'true or false' }));
