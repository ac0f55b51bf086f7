"""Four libnbd connections to one export against a model in memory. Arguments: URI, size in bytes."""
import random
import sys

import nbd

uri, size = sys.argv[1], int(sys.argv[2])
random.seed(7)
model = bytearray(size)
handles = []
for i in range(4):
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    h.connect_uri(uri)
    assert h.can_multi_conn()
    handles.append(h)
for step in range(400):
    w, r = random.sample(handles, 2)
    length = random.choice([1, 511, 512, 4096, 5000, 65536, 300000])
    offset = random.randrange(0, size - length)
    if random.random() < 0.5: offset -= offset % 512
    kind = random.choice(["write", "write", "write", "fua", "zero", "trim", "fast"])
    if kind == "write" or kind == "fua":
        data = random.randbytes(length)
        w.pwrite(data, offset, nbd.CMD_FLAG_FUA if kind == "fua" else 0)
        model[offset:offset + length] = data
    elif kind == "zero":
        w.zero(length, offset, random.choice([0, nbd.CMD_FLAG_NO_HOLE]))
        model[offset:offset + length] = bytes(length)
    elif kind == "fast":
        try:
            w.zero(length, offset, nbd.CMD_FLAG_FAST_ZERO)
            model[offset:offset + length] = bytes(length)
        except nbd.Error as e:
            assert e.errno == "ENOTSUP", e
    else:
        w.trim(length, offset)
        # What a trim leaves is not specified: learnt here, and from then on it has to stay.
        model[offset:offset + length] = r.pread(length, offset)
    assert r.pread(length, offset) == model[offset:offset + length], (step, kind, offset, length)
    if step % 50 == 0: w.flush()
# Nothing that is called zero or hole may hold anything.
extents = []
handles[0].block_status(size, 0, lambda c, o, e, err: extents.append((o, e)))
position = 0
for offset, entries in extents:
    assert offset == position
    for length, flags in zip(entries[0::2], entries[1::2]):
        if flags & nbd.STATE_ZERO:
            assert not any(model[position:position + length]), (position, length)
        position += length
assert position == size, position
for piece in range(0, size, 16 << 20):
    assert handles[1].pread(16 << 20, piece) == model[piece:piece + (16 << 20)], piece
for h in handles: h.shutdown()
