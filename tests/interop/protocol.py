# SPDX-License-Identifier: BSD-3-Clause
"""protocol.py SOCKET DUMP SERVER_PID SECONDS: speaks NBD by hand, first well, then badly for so long."""
import errno
import os
import random
import socket
import struct
import sys
import time

import nbd

path, dump_path, server, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
with open(dump_path, "rb") as file:
    dump = file.read(8 << 20)
size = os.path.getsize(dump_path)

OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC, SIMPLE_REPLY_MAGIC = 0x25609513, 0x67446698


class Raw:
    """A connection on which every byte is ours."""

    def __init__(self, flags=1, patience=30):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(patience)
        self.socket.connect(path)
        magic, option_magic, self.server_flags = struct.unpack(">8sQH", self.take(18))
        assert magic == b"NBDMAGIC" and option_magic == OPTION_MAGIC
        assert self.server_flags & 1, "fixed newstyle"
        self.send(struct.pack(">I", flags))

    def send(self, data):
        self.socket.sendall(data)

    def take(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def option(self, number, data=b""):
        self.send(struct.pack(">QII", OPTION_MAGIC, number, len(data)) + data)

    def option_reply(self):
        magic, option, kind, length = struct.unpack(">QIII", self.take(20))
        assert magic == REPLY_MAGIC
        return option, kind, self.take(length)

    def request(self, kind, offset=0, length=0, cookie=7, flags=0, data=b""):
        self.send(struct.pack(">IHHQQI", REQUEST_MAGIC, flags, kind, cookie, offset, length) + data)

    def simple_reply(self, length=0):
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        assert magic == SIMPLE_REPLY_MAGIC
        return error, cookie, self.take(length) if error == 0 else b""


def export_name():
    """The way in of the oldest clients, with and without the 124 zero bytes."""
    for flags, padding in [(1, 124), (3, 0)]:
        raw = Raw(flags)
        raw.option(1)
        told_size, _flags = struct.unpack(">QH", raw.take(10))
        assert told_size == size
        assert raw.take(padding) == bytes(padding)
        raw.request(0, 1024, 1024)
        assert raw.simple_reply(1024) == (0, 7, dump[1024:2048])
        raw.request(2)
    raw = Raw()
    raw.option(1, b"no such export")
    try:
        raw.take(1)
        raise AssertionError("an unknown export was given")
    except (EOFError, ConnectionError):
        pass


def options():
    raw = Raw()
    raw.option(0x7FFF)
    assert raw.option_reply()[:2] == (0x7FFF, 0x80000001), "ERR_UNSUP"
    raw.option(8, b"structured replies have no data")
    assert raw.option_reply()[1] == 0x80000003, "ERR_INVALID"
    raw.option(7, struct.pack(">I", 0xFFFFFFFF) + b"x" * 10)
    assert raw.option_reply()[1] == 0x80000003, "ERR_INVALID"
    raw.option(6, struct.pack(">I4sH", 4, b"nope", 0))
    assert raw.option_reply()[1] == 0x80000006, "ERR_UNKNOWN"
    raw.option(3)
    kinds = []
    while not kinds or kinds[-1] == 2:
        kinds.append(raw.option_reply()[1])
    assert kinds == [2, 1], f"LIST: {kinds}"
    raw.option(2)
    assert raw.option_reply()[:2] == (2, 1), "ABORT is acknowledged"


def refused_requests():
    handle = nbd.NBD()
    handle.set_strict_mode(0)
    handle.connect_unix(path)

    def refused(code, call, *arguments):
        try:
            call(*arguments)
        except nbd.Error as error:
            assert error.errnum in code, f"{call.__name__}: {error.errnum}"
            return
        raise AssertionError(f"{call.__name__}{arguments[1:]} was not refused")

    refused([errno.EINVAL], handle.pread, 512, size)
    refused([errno.EINVAL], handle.pread, 512, size - 511)
    refused([errno.EINVAL], handle.pread, 1, (1 << 63) - 1)
    refused([errno.EPERM], handle.pwrite, b"x" * 512, 0)
    refused([errno.EPERM], handle.zero, 512, 0)
    refused([errno.EPERM], handle.trim, 512, 0)
    refused([errno.EINVAL], handle.block_status, 512, 0, lambda *_: 0)
    assert handle.pread(512, 1024) == dump[1024:1536], "still served after refusals"
    handle.shutdown()

    raw = Raw()
    raw.option(1)
    raw.take(10 + 124)
    raw.request(999)
    assert raw.simple_reply()[0] == errno.EINVAL, "an unknown command"
    raw.request(0, 0, 512, flags=0x8000)
    assert raw.simple_reply()[0] == errno.EINVAL, "an unknown flag"
    raw.request(1, 0, 100_000, data=b"w" * 100_000)
    assert raw.simple_reply()[0] == errno.EPERM, "a write's data is read and dropped"
    raw.request(0, 0, 0xFFFFFFFF)
    assert raw.simple_reply()[0] in [errno.EINVAL, errno.EOVERFLOW], "more than one reply may hold"
    raw.request(0, 1080, 2, cookie=1234567890123456789)
    assert raw.simple_reply(2) == (0, 1234567890123456789, b"\x53\xef")


def resident_bytes():
    with open(f"/proc/{server}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def descriptors():
    return len(os.listdir(f"/proc/{server}/fd"))


def garbage(until, chance):
    """Every stage of a session, then bytes that mean nothing, cut off anywhere."""
    count = 0
    while time.monotonic() < until or count < 50:
        count += 1
        try:
            stage = chance.randrange(7)
            if stage == 0:  # not NBD at all
                raw = socket.socket(socket.AF_UNIX)
                raw.connect(path)
                raw.sendall(chance.randbytes(chance.randrange(1, 5000)))
                raw.close()
                continue
            raw = Raw(chance.choice([0, 1, 3, 1, 0xFFFFFFFF]), patience=0.2)
            if stage == 1:
                raw.send(chance.randbytes(chance.randrange(1, 5000)))
            elif stage == 2:  # an option that promises more than it sends, or more than anyone may
                raw.send(struct.pack(">QII", OPTION_MAGIC, chance.randrange(12),
                                     chance.choice([5, 4096, 1 << 20, 0xFFFFFFFF])))
                raw.send(chance.randbytes(chance.randrange(4096)))
            elif stage == 3:  # known options, unknown content
                for _ in range(20):
                    raw.option(chance.choice([2, 3, 5, 6, 7, 8, 9, 10, 11, 100]) if chance.random() < .9
                               else 3, chance.randbytes(chance.randrange(60)))
            else:
                raw.option(1)
                raw.take(10)
                for _ in range(chance.randrange(30)):
                    raw.request(chance.randrange(0, 12), chance.choice([0, size, 1 << 63, 4096]),
                                chance.choice([0, 1, 4096, 1 << 25, 0xFFFFFFFF]),
                                flags=chance.choice([0, 0, 0, 1, 0xFFFF]))
                if stage == 5:
                    raw.send(chance.randbytes(chance.randrange(1, 400)))
                elif stage == 6:
                    raw.take(chance.randrange(1, 2000))
            raw.socket.close()  # replies that are under way have nobody to go to
        except (EOFError, ConnectionError, BrokenPipeError, TimeoutError, AssertionError):
            pass
    return count


def hungry():
    """A client that asks for very much and reads nothing holds little of the server's memory."""
    before = resident_bytes()
    raw = Raw()
    raw.option(1)
    raw.take(10 + 124)
    raw.socket.settimeout(1)
    try:
        for _ in range(20_000):
            raw.request(0, 0, 1 << 20)
    except (TimeoutError, ConnectionError):
        pass
    grown = resident_bytes() - before
    assert grown < 100 << 20, f"20,000 unread requests cost {grown} bytes"
    raw.socket.close()


def settled(what, measure, limit, patience=20):
    deadline = time.monotonic() + patience
    while measure() > limit:
        assert time.monotonic() < deadline, f"{what}: {measure()} after {patience} s, at most {limit}"
        time.sleep(0.1)


export_name()
options()
refused_requests()
fds_before = descriptors()
garbage(time.monotonic() + seconds / 4, random.Random(1))
memory_before = resident_bytes()
tries = garbage(time.monotonic() + seconds, random.Random(int(os.environ.get("SEED", "2"))))
hungry()
settled("descriptors", descriptors, fds_before + 2)
settled("memory", resident_bytes, memory_before + (64 << 20))
export_name()
refused_requests()
print(f"{tries} garbage connections")
