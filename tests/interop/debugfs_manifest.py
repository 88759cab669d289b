#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""debugfs_manifest.py IMAGE: prints what `manifest` prints of the source, as debugfs reads the image.

Metadata and block addresses are debugfs's word; the bytes are then read from the image where it says.
"""
import os
import re
import stat
import subprocess
import sys
import tempfile
import zlib

image_path = sys.argv[1]
image = os.open(image_path, os.O_RDONLY)
scratch = tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(image_path)))


def debugfs(commands):
    """The output of each command. debugfs repeats the command before it, which makes the borders."""
    script = os.path.join(scratch.name, "commands")
    with open(script, "w") as file:
        file.writelines(command + "\n" for command in commands)
    result = subprocess.run(["debugfs", "-f", script, image_path], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, check=True)
    complaints = result.stderr.decode(errors="replace").splitlines()[1:]  # after the version
    if complaints:
        sys.exit("debugfs: " + "\n".join(complaints[:10]))
    outputs, rest = [], result.stdout
    for number, command in enumerate(commands):
        head = f"debugfs: {command}\n".encode()
        assert rest.startswith(head), (command, rest[:100])
        rest = rest[len(head):]
        if number + 1 < len(commands):
            end = rest.index(f"debugfs: {commands[number + 1]}\n".encode())
            outputs.append(rest[:end])
            rest = rest[end:]
        else:
            outputs.append(rest)
    return outputs


def escaped(data):
    return "".join(chr(byte) if 32 < byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in data)


with open(image_path, "rb") as file:
    file.seek(1024 + 24)
    block_bytes = 1024 << int.from_bytes(file.read(4), "little")

# The directories, level by level: inode number -> [(name, inode number)].
children = {}
level = [2]
while level:
    below = []
    for directory, listing in zip(level, debugfs([f"ls -p <{number}>" for number in level])):
        children[directory] = []
        for number, mode, name in re.findall(rb"/(\d+)/(\d+)/-?\d+/-?\d+/([^/]+)/\d*/\n", listing):
            if name in (b".", b"..") or (directory == 2 and name == b"lost+found"):
                continue
            children[directory].append((name, int(number)))
            if stat.S_ISDIR(int(mode, 8)):
                below.append(int(number))
        children[directory].sort()
    level = below

inodes = sorted({2} | {number for names in children.values() for _, number in names})
told = dict(zip(inodes, debugfs([f"stat <{number}>" for number in inodes])))

# Attributes: the list of their names is in `stat`, the exact bytes are written to files.
wanted = []
for number, text in told.items():
    section = re.search(rb"^Extended attributes:\n((?:  .*\n)*)", text, re.M)
    for name in re.findall(rb"^  (\S+) \(\d+\)", section[1] if section else b"", re.M):
        wanted.append((number, name.decode()))
values = [os.path.join(scratch.name, str(number)) for number in range(len(wanted))]
if wanted:
    debugfs([f"ea_get -f {value} <{number}> {name}" for value, (number, name) in zip(values, wanted)])


def as_the_kernel_shows(name, value):
    """Entries of an ACL that name nobody have no id on disk: the kernel says -1, libext2fs 0."""
    if not name.startswith("system.posix_acl_"):
        return value
    entries = [value[at:at + 8] for at in range(4, len(value), 8)]
    return value[:4] + b"".join(
        entry if entry[0] in (2, 8) else entry[:4] + b"\xff" * 4 for entry in entries)


xattrs = {}
for path, (number, name) in zip(values, wanted):
    with open(path, "rb") as file:
        value = as_the_kernel_shows(name, file.read())
    xattrs.setdefault(number, []).append(f" {escaped(name.encode())}={escaped(value)}")

TYPES = {b"regular": stat.S_IFREG, b"directory": stat.S_IFDIR, b"symlink": stat.S_IFLNK,
         b"character special": stat.S_IFCHR, b"block special": stat.S_IFBLK, b"FIFO": stat.S_IFIFO,
         b"socket": stat.S_IFSOCK}


def field(text, pattern):
    found = re.search(pattern, text, re.M)
    assert found, (pattern, text)
    return found[1]


def runs(text):
    """(first logical block, first physical block, count) of the file's data."""
    section = re.split(rb"^(?:EXTENTS|BLOCKS):\n", text, maxsplit=1, flags=re.M)
    if len(section) == 1:
        return
    for first, last, start in re.findall(rb"\((\d+)(?:-(\d+))?\):(\d+)", section[1]):
        yield int(first), int(start), int(last or first) - int(first) + 1


def data(text, size):
    """(offset, bytes), in order, cut at the file's size."""
    for logical, physical, count in runs(text):
        offset = logical * block_bytes
        length = min(count * block_bytes, size - offset)
        position = physical * block_bytes
        while length > 0:
            piece = os.pread(image, min(length, 1 << 20), position)
            assert piece, "the image ends inside a file"
            yield offset, piece
            offset, position, length = offset + len(piece), position + len(piece), length - len(piece)


def content(text, size):
    crc, zeroes = 0, bytes(1024)
    for offset, piece in data(text, size):
        if piece.count(0) == len(piece):
            continue
        for at in range(0, len(piece), 1024):
            block = piece[at:at + 1024]
            if block != zeroes[:len(block)]:
                crc = zlib.crc32(block, zlib.crc32((offset + at).to_bytes(8, "little"), crc))
    return crc


def time_of(text):
    found = re.search(rb"^ ?mtime: 0x([0-9a-f]+)(?::([0-9a-f]+))?", text, re.M)
    seconds, extra = int(found[1], 16), int(found[2] or b"0", 16)
    seconds -= (seconds & 1 << 31) << 1
    return f"{seconds + ((extra & 3) << 32)}.{extra >> 2:09d}"


first_path = {}


def entry(number, path):
    text = told[number]
    shown = escaped(path)
    mode = TYPES[field(text, rb"Type: (.*?) +Mode:")] | int(field(text, rb"Mode: +(\d+)"), 8)
    links = int(field(text, rb"^Links: (\d+)"))
    size = int(field(text, rb"Size: (\d+)$"))
    if not stat.S_ISDIR(mode) and links > 1:
        if number in first_path:
            print(f"{shown} same-as {first_path[number]}")
            return
        first_path[number] = shown
    user = int(field(text, rb"^User: +(-?\d+)")) % 2**32  # printed as signed
    group = int(field(text, rb"Group: +(-?\d+)")) % 2**32
    line = f"{shown} mode={mode:06o} owner={user}:{group} mtime={time_of(text)}"
    if not stat.S_ISDIR(mode):
        line += f" links={links}"
    if stat.S_ISREG(mode):
        line += f" size={size} content={content(text, size):08x}"
    elif stat.S_ISLNK(mode):
        fast = re.search(rb'^Fast link dest: "(.*)"$', text, re.M | re.S)
        target = fast[1] if fast else b"".join(piece for _, piece in data(text, size))
        assert len(target) == size, path
        line += f" target={escaped(target)}"
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        major, minor = field(text, rb"Device major/minor number: (\d+:\d+)").split(b":")
        line += f" device={int(major)}:{int(minor)}"
    print(line + "".join(sorted(xattrs.get(number, []))))
    for name, child in children.get(number, []):
        entry(child, name if number == 2 else path + b"/" + name)


sys.setrecursionlimit(100_000)
sys.stdout.reconfigure(newline="\n")
entry(2, b".")
