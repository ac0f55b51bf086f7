/** Words on the wire: every word has a fixed number of its own, so that reordering a list cannot change a meaning. */
import type { ByteReader } from './byte-reader.ts';
import type { ByteWriter } from './byte-writer.ts';

export interface CodeTable<Word extends string> {
  write(writer: ByteWriter, word: Word): void;
  read(reader: ByteReader, field: string): Word;
}

/** `codes` has a number from 0 to 255 for each word, none twice. */
export function codeTable<Word extends string>(codes: Readonly<Record<Word, number>>): CodeTable<Word> {
  const words = new Map<number, Word>();
  for (const word of Object.keys(codes) as Word[]) {
    if (words.has(codes[word])) throw new Error(`${word} and ${words.get(codes[word])} share a number`);
    words.set(codes[word], word);
  }
  return {
    write(writer, word) {
      writer.u8(codes[word]);
    },
    read(reader, field) {
      const code = reader.u8(field);
      const word = words.get(code);
      if (word === undefined) throw reader.error(field, `has the unknown value ${code}`);
      return word;
    },
  };
}
