# SPDX-License-Identifier: BSD-3-Clause
"""list_hier.py SOCKET: a client of LIST_HIER, written from docs/list-hier.md alone.

Checks all that the page promises against a server that has the exports which list_hier.sh made, and
prints the tree as it found it: by the option, by the contexts and by the flat list.
"""
import socket
import struct
import sys

path = sys.argv[1]

OPTION_MAGIC, REPLY_MAGIC = 0x49484156454F5054, 0x3E889045565A9
LIST, LIST_META, LIST_HIER = 3, 9, 0x6D6B7601
ACK, SERVER, META_CONTEXT, SERVER_DIR, HIER_MORE = 1, 2, 4, 0x6D6B7602, 0x6D6B7603
UNSUP, POLICY, INVALID, _, TLS_REQD, UNKNOWN, SHUTDOWN, _, TOO_BIG = (2**31 + n for n in range(1, 10))


class Violation(Exception):
    pass


def require(truth, what):
    if not truth:
        raise Violation(what)


class Connection:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(path)
        magic, option_magic, flags = struct.unpack(">8sQH", self.take(18))
        require(magic == b"NBDMAGIC" and option_magic == OPTION_MAGIC and flags & 1, "the greeting")
        self.socket.sendall(struct.pack(">I", 1))

    def take(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def option(self, number, data):
        """All replies up to the last one: [(type, data)]."""
        self.socket.sendall(struct.pack(">QII", OPTION_MAGIC, number, len(data)) + data)
        replies = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self.take(20))
            require(magic == REPLY_MAGIC and option == number, "the header of a reply")
            require(length <= 9000, "the length of a reply")
            replies.append((kind, self.take(length)))
            if kind == ACK or kind >> 31:
                require(kind != ACK or not length, "an ACK with data")
                return replies


def hier_data(directory, cursor=b"", most=0, flags=0, reserved=0):
    return (struct.pack(">HHII", flags, reserved, most, len(directory)) + directory +
            struct.pack(">I", len(cursor)) + cursor)


def is_path(name):
    """The grammar of names, for names that are not empty."""
    if len(name) > 4096 or any(byte < 0x20 or byte == 0x7F for byte in name):
        return False
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(part not in (b"", b".", b"..") for part in name.split(b"/"))


def component(directory, name):
    """The last component of an entry, checked to lie directly in the directory."""
    if name == b"":
        require(directory == b"", "a name without an end")
        return b""
    require(is_path(name), f"not a path: {name}")
    prefix = directory + b"/" if directory else b""
    require(name.startswith(prefix) and b"/" not in name[len(prefix):],
            f"{name} is not directly in {directory}")
    return name[len(prefix):]


class Refused(Exception):
    def __init__(self, error):
        super().__init__(hex(error))
        self.error = error


def hier_page(connection, directory, cursor, most, flags=0):
    """([(name, is export, is directory, description)], the next cursor)."""
    replies = connection.option(LIST_HIER, hier_data(directory, cursor, most, flags))
    kind, _text = replies.pop()
    if kind != ACK:
        raise Refused(kind)
    entries, following = [], b""
    for kind, data in replies:
        require(not following, "something behind HIER_MORE")
        if kind == HIER_MORE:
            require(1 <= len(data) <= 4096 and entries, "HIER_MORE")
            following = data
            continue
        require(kind in (SERVER, SERVER_DIR), f"reply {kind:#x}")
        (length,) = struct.unpack(">I", data[:4])
        name, rest = data[4:4 + length], data[4 + length:]
        require(len(name) == length, "the length of a name")
        if kind == SERVER:
            entries.append([name, True, False, rest])
            continue
        require(len(rest) >= 8, "the length of a SERVER_DIR")
        dflags, _reserved, _children = struct.unpack(">HHI", rest[:8])
        if dflags & 1:
            require(entries and entries[-1][:3] == [name, True, False], "a directory before its export")
            entries[-1][2] = True
        else:
            entries.append([name, False, True, rest[8:]])
    require(not most or len(entries) <= most, "more entries than were asked for")
    return [tuple(entry) for entry in entries], following


def hier_level(directory, most=0, flags=0, connect_each_time=False):
    connection, entries, cursor = Connection(), [], b""
    while True:
        page, cursor = hier_page(connection, directory, cursor, most, flags)
        entries += page
        if not cursor:
            break
        if connect_each_time:
            connection = Connection()
    names = [component(directory, entry[0]) for entry in entries]
    require(all(a < b for a, b in zip(names, names[1:])), f"the order of {directory}")
    return entries


def context_level(directory):
    connection, entries, query = Connection(), [], b"x-mkvirtfs:ls:" + directory
    while query:
        data = struct.pack(">III", 0, 1, len(query)) + query
        query = b""
        *replies, last = connection.option(LIST_META, data)
        require(last == (ACK, b""), "LIST_META_CONTEXT was refused")
        for kind, reply in replies:
            require(kind == META_CONTEXT and reply[:4] == bytes(4), "a context")
            space, what, name = reply[4:].split(b":", 2)
            require(space == b"x-mkvirtfs", "another namespace")
            if what == b"more":
                query = b"x-mkvirtfs:after:" + name
            elif what == b"export":
                entries.append([name, True, False])
            elif entries and entries[-1][0] == name:
                entries[-1][2] = True
            else:
                require(what == b"dir", "an unknown kind of entry")
                entries.append([name, False, True])
    for entry in entries:
        component(directory, entry[0])
    return [tuple(entry) for entry in entries]


def walk(level, directory=b""):
    for entry in level(directory):
        yield entry
        if entry[2]:
            yield from walk(level, entry[0])


def flat():
    *replies, last = Connection().option(LIST, b"")
    require(last == (ACK, b""), "LIST was refused")
    for _kind, data in replies:
        (length,) = struct.unpack(">I", data[:4])
        yield data[4:4 + length]


def errors():
    connection = Connection()

    def refused(error, data):
        *replies, (kind, _text) = connection.option(LIST_HIER, data)
        require(kind == error and not replies, f"{data}: {kind:#x}, not {error:#x}")

    for directory in [b"/", b"/a", b"a/", b"a//b", b".", b"a/..", b"\xff", b"a\0b", b"a\nb"]:
        refused(INVALID, hier_data(directory))
    refused(UNKNOWN, hier_data(b"no such directory"))
    refused(UNKNOWN, hier_data(b"x" * 4096))
    refused(TOO_BIG, hier_data(b"x" * 4097))
    refused(TOO_BIG, hier_data(b"", b"x" * 4097))
    refused(INVALID, hier_data(b"", b"a/b"))
    refused(INVALID, hier_data(b"", flags=2))
    refused(INVALID, hier_data(b"", reserved=1))
    whole = hier_data(b"tools", b"b")
    for end in range(len(whole)):
        refused(INVALID, whole[:end])
    refused(INVALID, whole + b"\0")
    for lying in (4, 6, 0xFFFFFFFF, 0xFFFFFFF0, 1 << 31):
        refused(INVALID, whole[:8] + struct.pack(">I", lying) + whole[12:])
    require(connection.option(LIST_HIER, hier_data(b""))[-1] == (ACK, b""), "not in step")
    # The budget that the page promises.
    for _ in range(4000):
        require(connection.option(LIST_HIER, hier_data(b"tools"))[-1] == (ACK, b""), "the budget")


def main():
    tree = list(walk(hier_level))
    for most in (1, 2, 3):
        require(list(walk(lambda d, m=most: hier_level(d, m, connect_each_time=True))) == tree,
                f"pages of {most}")
    bare = list(walk(lambda d: hier_level(d, flags=1)))
    require([entry[:3] for entry in bare] == [entry[:3] for entry in tree], "NO_DESCRIPTIONS")
    require(not any(entry[3] for entry in bare), "descriptions in spite of NO_DESCRIPTIONS")
    require(list(walk(context_level)) == [entry[:3] for entry in tree], "the contexts' tree")
    require(sorted(flat()) == sorted(entry[0] for entry in tree if entry[1]), "the flat list")
    errors()
    for name, is_export, is_directory, description in tree:
        print(name.decode(), "export" if is_export else "", "directory" if is_directory else "",
              description.decode(), sep="|")


main()
