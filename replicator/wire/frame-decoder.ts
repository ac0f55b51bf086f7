/**
 * Bytes of one direction of a connection -> frames. Nothing in a header is believed before its CRC, nothing is
 * buffered before its length is within the bounds of its type, and nothing is handed on before the CRC over body and
 * payload. The first problem ends the decoder: what comes after it is never looked at.
 */
import { ByteReader } from './byte-reader.ts';
import { frameMagic, headerBytes, headerLayout } from './constants.ts';
import { crc32c } from './crc32c.ts';
import { ProtocolError } from './protocol-error.ts';

/** What a frame of some type may measure. */
export interface FrameBounds {
  readonly name: string;
  readonly bodyBytesMin: number;
  readonly bodyBytesMax: number;
  readonly payloadBytesMax: number;
}

/** What is acceptable just now: bounds by frame type (anything else is an error), and who gets the frames. */
export interface FramePhase {
  readonly bounds: ReadonlyMap<number, FrameBounds>;
  /** `body` is valid during the call only; `payload` is handed over. May throw a ProtocolError. */
  readonly deliver: (type: number, body: ByteReader, payload: Uint8Array | null) => void;
}

const nothing = new Uint8Array(0);

/** Long payloads in flight: with the usual ones of up to 1 MiB as much as a client has on its way. */
const sparesMax = 16;
const spareBytesMax = 1024 * 1024;
/** Less room than this is not worth a read of its own. */
const directBytesMin = 16 * 1024;

type Stage = 'header' | 'body' | 'payload';

export class FrameDecoder {
  #phase: FramePhase;
  #stage: Stage = 'header';
  #stopped = false;
  #error: ProtocolError | null = null;
  #sequence = 0;

  readonly #header = new Uint8Array(headerBytes);
  readonly #headerView = new DataView(this.#header.buffer);
  /** Bytes of the present stage gathered from earlier chunks. */
  #gathered = 0;
  #gather: Uint8Array = nothing;
  #hasLentView = false;
  /** Memory for long payloads that nobody uses: the next ones are gathered in it. */
  readonly #spares: Uint8Array[] = [];
  /** Delivered in memory of their own. */
  readonly #gathers = new WeakSet<Uint8Array>();

  #type = 0;
  #bounds: FrameBounds | null = null;
  #bodyLength = 0;
  #payloadLength = 0;
  #contentCrc = 0;
  #runningCrc = 0;
  readonly #body = new ByteReader();

  constructor(phase: FramePhase) {
    this.#phase = phase;
  }

  /** From the next frame on, this is acceptable. Meant to be called while a frame is delivered. */
  become(phase: FramePhase): void {
    this.#phase = phase;
  }

  /** Deliver nothing more, not even what is left of the present chunk. */
  stop(): void {
    this.#stopped = true;
    this.#gather = nothing;
  }

  /** Whether a payload delivered since the last call was a view of the chunk rather than memory of its own. */
  takeHasLentView(): boolean {
    const has = this.#hasLentView;
    this.#hasLentView = false;
    return has;
  }

  /** Nobody uses this payload any more: if it was delivered in memory of its own, later ones may be gathered there. */
  recycle(payload: Uint8Array): void {
    if (!this.#gathers.delete(payload)) return;
    if (payload.length <= spareBytesMax && this.#spares.length < sparesMax) this.#spares.push(payload);
  }

  /** Where the bytes that come next may go at once: the rest of a long payload, then told by `advance`. Null: to `feed`. */
  get room(): Uint8Array | null {
    if (this.#stage !== 'payload' || this.#gathered === 0) return null;
    return this.#payloadLength - this.#gathered < directBytesMin
      ? null
      : this.#gather.subarray(this.#gathered);
  }

  /** That many bytes have been put into `room`. As `feed` otherwise. */
  advance(byteCount: number): ProtocolError | null {
    if (this.#stopped || this.#error !== null) return this.#error;
    this.#gathered += byteCount;
    // While it is warm: the whole of a long payload would have left the cache by the end.
    const piece = this.#gather.subarray(this.#gathered - byteCount, this.#gathered);
    this.#runningCrc = crc32c(piece, 0, byteCount, this.#runningCrc);
    return this.feed(nothing);
  }

  /** The stream ends inside a frame. */
  get isInsideFrame(): boolean {
    return this.#stage !== 'header' || this.#gathered > 0;
  }

  /**
   * Take the next bytes of the stream, whatever their number. The chunk is handed over: payloads are views of it
   * where they lie in one piece. Returns what was wrong with the stream, from the first call that found it on.
   */
  feed(chunk: Uint8Array): ProtocolError | null {
    if (this.#stopped || this.#error !== null) return this.#error;
    try {
      this.#consume(chunk);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#error = error;
      this.#gather = nothing;
    }
    return this.#error;
  }

  #consume(chunk: Uint8Array): void {
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
    let at = 0;
    while (!this.#stopped) {
      const available = chunk.length - at;
      switch (this.#stage) {
        case 'header': {
          if (available === 0) return;
          if (this.#gathered === 0 && available >= headerBytes) {
            this.#readHeader(chunk, view, at);
            at += headerBytes;
          } else {
            at += this.#collect(this.#header, headerBytes, chunk, at);
            if (this.#gathered < headerBytes) return;
            this.#gathered = 0;
            this.#readHeader(this.#header, this.#headerView, 0);
          }
          this.#stage = 'body';
          break;
        }
        case 'body': {
          const length = this.#bodyLength;
          const name = this.#bounds?.name ?? '';
          if (this.#gathered === 0 && available >= length) {
            this.#body.reset(name, chunk, view, at, at + length);
            this.#runningCrc = crc32c(chunk, at, at + length);
            at += length;
          } else {
            if (available === 0) return;
            if (this.#gathered === 0) this.#gather = new Uint8Array(length);
            at += this.#collect(this.#gather, length, chunk, at);
            if (this.#gathered < length) return;
            this.#gathered = 0;
            const body = this.#gather;
            this.#body.reset(name, body, new DataView(body.buffer, body.byteOffset, length), 0, length);
            this.#runningCrc = crc32c(body);
          }
          this.#stage = 'payload';
          break;
        }
        case 'payload': {
          const length = this.#payloadLength;
          let payload: Uint8Array | null = null;
          if (length > 0) {
            if (this.#gathered === 0 && available >= length) {
              payload = chunk.subarray(at, at + length);
              this.#runningCrc = crc32c(payload, 0, length, this.#runningCrc);
              this.#hasLentView = true;
              at += length;
            } else {
              // The chunk may be received into again before the rest is here.
              this.#body.own();
              if (available === 0 && this.#gathered < length) return;
              if (this.#gathered === 0) this.#gather = this.#gatherMemory(length);
              const count = this.#collect(this.#gather, length, chunk, at);
              this.#runningCrc = crc32c(chunk, at, at + count, this.#runningCrc);
              at += count;
              if (this.#gathered < length) return;
              this.#gathered = 0;
              payload = this.#gather;
              this.#gather = nothing;
              this.#gathers.add(payload);
            }
          }
          if (this.#runningCrc !== this.#contentCrc) {
            throw new ProtocolError('contentCrc', `does not match (${this.#bounds?.name ?? ''})`);
          }
          this.#stage = 'header';
          this.#phase.deliver(this.#type, this.#body, payload);
          break;
        }
        default:
          this.#stage satisfies never;
      }
    }
  }

  /** Not zeroed first: every byte is overwritten before anyone sees it. */
  #gatherMemory(length: number): Uint8Array {
    const spare = this.#spares.findIndex((memory) => memory.length === length);
    return spare === -1 ? Buffer.allocUnsafeSlow(length) : (this.#spares.splice(spare, 1)[0] ?? nothing);
  }

  /** Copy what is missing to `length`, as far as the chunk has it; returns the number of bytes copied. */
  #collect(into: Uint8Array, length: number, chunk: Uint8Array, at: number): number {
    const count = Math.min(length - this.#gathered, chunk.length - at);
    into.set(chunk.subarray(at, at + count), this.#gathered);
    this.#gathered += count;
    return count;
  }

  #readHeader(bytes: Uint8Array, view: DataView, at: number): void {
    if (view.getUint32(at + headerLayout.magic) !== frameMagic) {
      throw new ProtocolError('magic', 'is not that of a Lockstep peer');
    }
    const headerCrc = crc32c(bytes, at, at + headerLayout.headerCrc);
    if (view.getUint32(at + headerLayout.headerCrc) !== headerCrc) {
      throw new ProtocolError('headerCrc', 'does not match');
    }
    if (view.getUint8(at + headerLayout.flags) !== 0)
      throw new ProtocolError('flags', 'has reserved bits set');
    if (view.getUint16(at + headerLayout.reserved) !== 0) throw new ProtocolError('reserved', 'is not zero');
    const sequence =
      view.getUint32(at + headerLayout.sequence) * 0x1_0000_0000 +
      view.getUint32(at + headerLayout.sequence + 4);
    if (sequence !== this.#sequence) {
      throw new ProtocolError('sequence', `is ${sequence} where ${this.#sequence} is due`);
    }
    const type = view.getUint8(at + headerLayout.type);
    const bounds = this.#phase.bounds.get(type);
    if (bounds === undefined) {
      throw new ProtocolError('type', `0x${type.toString(16).padStart(2, '0')} is not acceptable here`);
    }
    const bodyLength = view.getUint32(at + headerLayout.bodyLength);
    if (bodyLength < bounds.bodyBytesMin || bodyLength > bounds.bodyBytesMax) {
      throw new ProtocolError(
        'bodyLength',
        `is ${bodyLength}, ${bounds.name} has ${bounds.bodyBytesMin} to ${bounds.bodyBytesMax}`,
      );
    }
    const payloadLength = view.getUint32(at + headerLayout.payloadLength);
    if (payloadLength > bounds.payloadBytesMax) {
      throw new ProtocolError(
        'payloadLength',
        `is ${payloadLength}, ${bounds.name} has at most ${bounds.payloadBytesMax}`,
      );
    }
    this.#type = type;
    this.#bounds = bounds;
    this.#bodyLength = bodyLength;
    this.#payloadLength = payloadLength;
    this.#contentCrc = view.getUint32(at + headerLayout.contentCrc);
    this.#sequence += 1;
  }
}
