# SPDX-License-Identifier: BSD-3-Clause
"""examples.py SOCKET: what is special about poll_loop: an option and a context of its own."""
import socket
import struct
import sys
import time

import nbd

path = sys.argv[1]
STRIPE = 65536


class Client:
    """As much of the protocol as an option needs."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(path)
        assert self.take(18)[:16] == b"NBDMAGICIHAVEOPT"
        self.socket.sendall(struct.pack(">I", 3))

    def take(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            assert more, "the server hung up"
            data += more
        return data

    def option(self, number, data=b""):
        self.socket.sendall(struct.pack(">8sII", b"IHAVEOPT", number, len(data)) + data)
        replies = []
        while not replies or 1 < replies[-1][0] < 2**31:
            magic, echoed, kind, length = struct.unpack(">QIII", self.take(20))
            assert magic == 0x3E889045565A9 and echoed == number
            replies.append((kind, self.take(length)))
        return replies


COUNT = 0x65780001
first, second = Client(), Client()
assert first.option(COUNT) == [(COUNT + 1, struct.pack(">I", 2)), (1, b"")]
assert first.option(COUNT, b"x")[-1][0] == 2**31 + 3, "data where none belongs"
assert first.option(COUNT + 8)[-1][0] == 2**31 + 1, "an option that nobody has added"
second.socket.close()
# The loop sees that soon; a connection may send no more than 32 options.
for _ in range(20):
    clients = first.option(COUNT)[0][1]
    if clients == struct.pack(">I", 1):
        break
    time.sleep(0.2)
assert clients == struct.pack(">I", 1), "a client that left is still counted"

h = nbd.NBD()
h.add_meta_context("x-example:stripe")
h.add_meta_context("base:allocation")
h.set_opt_mode(True)
h.connect_unix(path)
listed = []
h.opt_list_meta_context(lambda name: listed.append(name) or 0)
assert sorted(listed) == ["base:allocation", "x-example:stripe"], listed
h.opt_go()
assert h.get_size() == 16 * STRIPE and h.is_read_only()
status = {}
h.block_status(3 * STRIPE, STRIPE // 2, lambda name, offset, entries, error: status.update({name: entries}))
assert status["x-example:stripe"] == [STRIPE // 2, 0, STRIPE, 1, STRIPE, 2, STRIPE // 2, 3], status
for stripe in range(16):
    assert h.pread(STRIPE, stripe * STRIPE) == bytes([ord("a") + stripe]) * STRIPE
h.shutdown()
