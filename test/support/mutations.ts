/** What can become of the bytes of a valid conversation, drawn from a seed: the same seed, the same damage. */

/** `messages` are the parts that may be lost, repeated or swapped as a whole. */
export function mutated(messages: readonly Buffer[], random: () => number): Buffer {
  const draw = (count: number): number => Math.floor(random() * count);
  const parts = [...messages];
  const at = draw(parts.length);
  const part = parts[at] ?? Buffer.alloc(0);
  switch (draw(8)) {
    case 0: {
      const flipped = Buffer.from(part);
      const byte = draw(flipped.length);
      flipped.writeUInt8(flipped.readUInt8(byte) ^ (1 << draw(8)), byte);
      parts[at] = flipped;
      break;
    }
    case 1:
      parts.splice(at, parts.length, part.subarray(0, draw(part.length)));
      break;
    case 2:
      parts.splice(at, 0, part);
      break;
    case 3:
      parts.splice(at, 1);
      break;
    case 4:
      parts.splice(draw(parts.length), 0, ...parts.splice(at, 1));
      break;
    case 5: {
      const cut = draw(part.length);
      parts[at] = Buffer.concat([
        part.subarray(0, cut),
        randomBytes(1 + draw(64), random),
        part.subarray(cut),
      ]);
      break;
    }
    case 6:
      parts.splice(at, 0, randomBytes(1 + draw(20_000), random));
      break;
    case 7: {
      // A number somewhere becomes as large as it can be.
      const large = Buffer.from(part);
      const from = draw(large.length);
      large.fill(0xff, from, Math.min(from + 4, large.length));
      parts[at] = large;
      break;
    }
  }
  return Buffer.concat(parts);
}

function randomBytes(length: number, random: () => number): Buffer {
  return Buffer.from(Array.from({ length }, () => Math.floor(random() * 256)));
}
