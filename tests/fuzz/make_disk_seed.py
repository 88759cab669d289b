#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""tests/fuzz/make_disk_seed.py IMAGE SEED: an image as the input of a target that takes a SparseDisk."""
import struct
import sys

image = open(sys.argv[1], "rb").read()
assert len(image) % 1024 == 0 and len(image) // 1024 < 65536
pieces = [(at // 1024, image[at : at + 1024]) for at in range(0, len(image), 1024)]
pieces = [(kib, data) for kib, data in pieces if any(data)]
with open(sys.argv[2], "wb") as seed:
    seed.write(struct.pack("<HH", len(image) // 1024, len(pieces)))
    seed.write(b"".join(struct.pack("<H", kib) for kib, _ in pieces))
    seed.write(b"".join(data for _, data in pieces))
