# SPDX-License-Identifier: BSD-3-Clause
"""tls.py SOCKET DUMP DIR on|require: what a man in the middle would try, by hand and with Python's TLS."""
import errno
import socket
import ssl
import struct
import sys

import nbd

path, dump_path, directory, mode = sys.argv[1:]
with open(dump_path, "rb") as file:
    dump = file.read(1 << 20)

OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC, SIMPLE_REPLY_MAGIC = 0x25609513, 0x67446698
ABORT, LIST, STARTTLS, GO, STRUCTURED_REPLY = 2, 3, 5, 7, 8
ACK, INFO = 1, 3
INVALID, TLS_REQD = 0x80000003, 0x80000005


def option(number, data=b""):
    return struct.pack(">QII", OPTION_MAGIC, number, len(data)) + data


class Raw:
    """A connection on which every byte is ours, and which can go over to TLS."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        assert self.take(16) == b"NBDMAGICIHAVEOPT"
        self.take(2)
        self.send(struct.pack(">I", 3))

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

    def ask(self, number, data=b""):
        self.send(option(number, data))
        while True:
            magic, echoed, kind, length = struct.unpack(">QIII", self.take(20))
            assert magic == REPLY_MAGIC and echoed == number
            self.take(length)
            if kind != INFO:
                return kind

    def start_tls(self):
        assert self.ask(STARTTLS) == ACK
        context = ssl.create_default_context(cafile=f"{directory}/ca-cert.pem")
        context.load_cert_chain(f"{directory}/client-cert.pem", f"{directory}/client-key.pem")
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def rest(self):
        data = b""
        try:
            while more := self.socket.recv(65536):
                data += more
        except ConnectionError:
            pass
        return data


def state_is_wiped():
    raw = Raw()
    if mode == "on":
        assert raw.ask(STRUCTURED_REPLY) == ACK
    else:
        assert raw.ask(STRUCTURED_REPLY) == TLS_REQD
        assert raw.ask(LIST) == TLS_REQD
        assert raw.ask(GO, struct.pack(">IH", 0, 0)) == TLS_REQD
        assert raw.ask(999) == TLS_REQD
    assert raw.ask(STARTTLS, b"data") == INVALID
    raw.start_tls()
    assert raw.ask(STARTTLS) == INVALID, "TLS within TLS"
    assert raw.ask(GO, struct.pack(">IH", 0, 0)) == ACK
    raw.send(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, 0, 7, 1024, 1024))
    assert struct.unpack(">IIQ", raw.take(16)) == (SIMPLE_REPLY_MAGIC, 0, 7), "replies are simple again"
    assert raw.take(1024) == dump[1024:2048]
    raw.send(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, 2, 8, 0, 0))
    assert raw.rest() == b"", "closed with TLS's own good-bye"


def injection_is_refused():
    # Together with STARTTLS, so that it lies in the server's buffer when TLS begins.
    for injected in (option(STRUCTURED_REPLY), option(GO, struct.pack(">IH", 0, 0)), b"\0", option(ABORT)):
        raw = Raw()
        raw.send(option(STARTTLS) + injected)
        assert len(raw.rest()) <= 20, "no more than the answer to STARTTLS"
    # Behind its answer: that is no ClientHello.
    raw = Raw()
    assert raw.ask(STARTTLS) == ACK
    raw.send(option(STRUCTURED_REPLY) * 10)
    assert len(raw.rest()) < 20, "no more than an alert"
    raw = Raw()
    if mode == "require":
        raw.send(option(1))
        assert raw.rest() == b"", "EXPORT_NAME has no error reply"
    else:
        assert raw.ask(ABORT) == ACK


def refused_writes():
    """The payload of a write is dropped from the TLS stream, not from the socket."""
    handle = nbd.NBD()
    handle.set_strict_mode(0)
    handle.set_tls(nbd.TLS_REQUIRE)
    handle.set_tls_certificates(directory)
    handle.connect_unix(path)
    assert handle.get_tls_negotiated()
    for length in (1, 512, 100_000, 4 << 20):
        try:
            handle.pwrite(b"\x25" * length, 0)
            raise AssertionError("a write was accepted")
        except nbd.Error as error:
            assert error.errnum == errno.EPERM
        assert handle.pread(4096, 1024) == dump[1024:5120], "in step after a refused write"
    handle.shutdown()


state_is_wiped()
injection_is_refused()
refused_writes()
