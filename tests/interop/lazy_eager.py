# SPDX-License-Identifier: BSD-3-Clause
"""lazy_eager.py URI DUMP: compares an export with the dump of the same source."""
import hashlib
import random
import sys

import nbd

uri, dump_path = sys.argv[1:]
with open(dump_path, "rb") as file:
    dump = file.read()
chance = random.Random(20260101)


def connect(structured=True):
    handle = nbd.NBD()
    handle.set_request_structured_replies(structured)
    if structured:
        handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.connect_uri(uri)
    assert handle.get_structured_replies_negotiated() == structured
    return handle


def in_random_order(handle):
    """Cuts the image at random places, reads the pieces in random order, hashes them in order."""
    cuts = [0]
    while cuts[-1] < len(dump):
        cuts.append(min(len(dump), cuts[-1] + chance.choice([1, 511, 512, 4096, 70001, 1 << 20])))
        if chance.random() < 0.7:  # most of a large image is read in large pieces
            cuts.append(min(len(dump), cuts[-1] + (1 << 20)))
    pieces = list(zip(cuts, cuts[1:]))
    order = list(range(len(pieces)))
    chance.shuffle(order)
    read = [b""] * len(pieces)
    for number in order:
        start, end = pieces[number]
        read[number] = handle.pread(end - start, start) if end > start else b""
    digest = hashlib.sha256()
    for piece in read:
        digest.update(piece)
    return digest.hexdigest()


def in_flight(handle, count):
    """Many small requests at once: replies may come in any order."""
    waiting = []
    for _ in range(count):
        length = chance.randrange(1, 20000)
        offset = chance.randrange(0, len(dump) - length)
        buffer = nbd.Buffer(length)
        waiting.append((handle.aio_pread(buffer, offset), buffer, offset))
        while handle.aio_in_flight() > 60:
            handle.poll(-1)
    while handle.aio_in_flight() > 0:
        handle.poll(-1)
    for cookie, buffer, offset in waiting:
        assert handle.aio_command_completed(cookie)
        data = bytes(buffer.to_bytearray())
        assert data == dump[offset:offset + len(data)], f"bytes at {offset}"


def extents_of(handle, offset, length):
    found = []

    def extent(context, start, entries, _error):
        assert context == nbd.CONTEXT_BASE_ALLOCATION
        for size, flags in zip(entries[::2], entries[1::2]):
            found.append((start, size, flags))
            start += size

    handle.block_status(length, offset, extent)
    return found


def map_agrees(handle):
    position, holes, data, nonzero_data = 0, 0, 0, 0
    while position < len(dump):
        extents = extents_of(handle, position, min(len(dump) - position, 1 << 30))
        assert extents and extents[0][0] == position, extents[:1]
        for start, size, flags in extents:
            assert size > 0
            end = min(start + size, len(dump))
            assert start + size <= len(dump), "an extent beyond the end"
            if flags & nbd.STATE_ZERO:
                assert dump[start:end].count(0) == end - start, f"a hole with data at {start}"
                holes += end - start
            else:
                data += end - start
                nonzero_data += sum(
                    dump[at:min(at + 4096, end)].count(0) < min(at + 4096, end) - at
                    for at in range(start, end, 4096)) * 4096
            position = end
    assert holes + data == len(dump)
    # A map that calls everything data would be true and useless.
    assert nonzero_data > 0.9 * data, f"{nonzero_data} of {data} bytes of data extents are not zero"
    assert holes > 0

    # Ranges that begin and end anywhere are told the same.
    for _ in range(200):
        offset = chance.randrange(0, len(dump) - 1)
        length = chance.randrange(1, min(len(dump) - offset, 10_000_000) + 1)
        for start, size, flags in extents_of(handle, offset, length):
            end = min(start + size, len(dump))
            assert start >= offset
            if flags & nbd.STATE_ZERO:
                assert dump[start:end].count(0) == end - start, f"a hole with data at {start}"


expected = hashlib.sha256(dump).hexdigest()
for structured in [True, False]:
    handle = connect(structured)
    assert handle.get_size() == len(dump)
    assert in_random_order(handle) == expected, f"random order, structured replies: {structured}"
    in_flight(handle, 2000)
    if structured:
        map_agrees(handle)
        # One chunk, also across holes, when the client may not have fragments.
        chunks = []

        def chunk(data, offset, kind, _error):
            chunks.append((offset, kind, len(data)))

        whole = handle.pread_structured(1 << 20, 0, chunk, nbd.CMD_FLAG_DF)
        assert whole == dump[:1 << 20]
        assert chunks == [(0, nbd.READ_DATA, 1 << 20)], chunks
        # Without that wish, holes arrive as hole chunks.
        chunks.clear()
        assert handle.pread_structured(16 << 20, 0, chunk) == dump[:16 << 20]
        assert {kind for _, kind, _ in chunks} == {nbd.READ_HOLE, nbd.READ_DATA}, chunks
    handle.shutdown()
