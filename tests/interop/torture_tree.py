#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""torture_tree.py DIR [--block BYTES]: makes a tree of everything that has ever been hard.

The same arguments make the same names, contents and metadata. --block bounds what the file system's
block size bounds (long symlinks, extended attributes). What this user or host may not do (device
nodes, foreign owners) is left out and named on stderr; a test compares with what is there.
"""
import argparse
import os
import random
import socket
import stat
import struct


def attempt(what, action, *arguments, **keywords):
    try:
        action(*arguments, **keywords)
    except OSError as error:
        # scripts/run-tests counts these lines; for root they are failures.
        print(f"SKIPPED: {what}: {error.strerror}", flush=True)


def write(path, data=b"", mode=0o644):
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def pattern(size, seed):
    return random.Random(seed).randbytes(size)


def make_directory(name):
    os.mkdir(name)
    os.chdir(name)


def names():
    make_directory("names")
    hostile = [
        b"new\nline", b"tab\there", b" leading", b"trailing ", b"-rf", b"'quotes\"", b"back\\slash",
        b"$HOME", b"*", b"?", b"...", b"a" * 255, b"\xc3\xa4" * 127, b"\xff\xfe not UTF-8", b"\x01\x7f",
        b"CON", b"name;rm", b"#comment", b"%s%n", b"[brackets]", b"<1>", b"x" * 254, b"caf\xc3\xa9",
        b"cafe\xcc\x81", b"\x80", b"~", b"!", b"=", b"name with  blanks", b"lost+found",
    ]
    for name in hostile:
        write(name, name)
    os.mkdir(b"dir\nwith\tblanks ")
    write(b"dir\nwith\tblanks /child", b"child")
    os.chdir("..")


def sizes():
    make_directory("sizes")
    for size in [0, 1, 59, 60, 61, 1023, 1024, 1025, 2047, 2048, 4095, 4096, 4097, 12 * 1024,
                 12 * 1024 + 1, 12 * 4096, 12 * 4096 + 1, (12 + 256) * 1024, (12 + 256) * 1024 + 1,
                 3_000_000, (12 + 1024) * 4096 + 1]:
        write(f"{size}", pattern(size, size))
    write("zeroes", bytes(100_000))
    os.chdir("..")


def sparse():
    make_directory("sparse")
    # Beyond 4 GiB, with data on both sides of every boundary that a format has there.
    with open("6-gib", "wb") as file:
        for offset in [0, 1 << 20, (1 << 31) - 2048, (1 << 32) - 3000, 5 << 30]:
            file.seek(offset)
            file.write(pattern(5000, offset))
        file.truncate(6 << 30)
    with open("all-hole", "wb") as file:
        file.truncate(5_000_001)
    with open("1000-extents", "wb") as file:
        for number in range(1000):
            file.seek(number * 8192)
            file.write(pattern(4096, number))
    with open("ends-in-data", "wb") as file:
        file.seek(9_999_990)
        file.write(b"the end")
    os.chdir("..")


def links():
    make_directory("links")
    write("first", b"one inode, many names")
    os.mkdir("elsewhere")
    os.link("first", "elsewhere/second")
    for number in range(300):
        os.link("first", f"link-{number}")
    for length in [1, 59, 60, 61, 255, 1000]:
        os.symlink("t" * length, f"symlink-{length}")
    os.symlink("elsewhere", "to-directory")
    os.symlink("/etc/passwd", "absolute")
    os.symlink("../../../../..", "out")
    os.symlink(b"\xff\n", "target-bytes")
    os.link("symlink-60", "symlink-60-again", follow_symlinks=False)
    os.chdir("..")


def special():
    make_directory("special")
    os.mkfifo("fifo", 0o600)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    for name, kind, major, minor in [("null", stat.S_IFCHR, 1, 3), ("sda1", stat.S_IFBLK, 8, 1),
                                     ("large", stat.S_IFCHR, 1000, 70000),
                                     ("edge", stat.S_IFBLK, 255, 256)]:
        attempt(f"device {name}", os.mknod, name, kind | 0o640, os.makedev(major, minor))
    os.chdir("..")


def metadata():
    make_directory("metadata")
    modes = [0o000, 0o400, 0o777, 0o4755, 0o2755, 0o1777, 0o7777]
    if os.geteuid() != 0:
        print("SKIPPED: a file that only root may read", flush=True)
        modes.remove(0o000)
    for mode in modes:
        write(f"mode-{mode:04o}", mode=mode)
    os.mkdir("sticky")
    os.chmod("sticky", 0o3777)
    for owner in [1, 1000, 65535, 65536, 4_000_000_000, 4_294_967_294]:
        write(f"owner-{owner}")
        attempt(f"owner {owner}", os.chown, f"owner-{owner}", owner, owner // 2)
    os.chdir("..")


def acl(entries):
    """system.posix_acl_*: version 2, then (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def attributes(block_bytes):
    make_directory("attributes")
    nobody = 0xFFFFFFFF
    rich = acl([(1, 6, nobody), (2, 7, 1000), (2, 4, 70000), (4, 4, nobody), (8, 5, 100),
                (16, 7, nobody), (32, 4, nobody)])
    write("acl")
    attempt("ACL", os.setxattr, "acl", "system.posix_acl_access", rich)
    os.mkdir("default-acl")
    attempt("default ACL", os.setxattr, "default-acl", "system.posix_acl_default", rich)
    write("default-acl/child")
    write("capability", mode=0o755)
    attempt("capability", os.setxattr, "capability", "security.capability",
            struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
    write("small")
    os.setxattr("small", "user.small", b"in the inode")
    os.setxattr("small", "user.empty", b"")
    write("large")
    os.setxattr("large", "user.large", pattern(block_bytes // 2, 1))
    os.setxattr("large", "user.bytes", bytes(range(256)))
    for name in ["twin-1", "twin-2"]:
        write(name)
        os.setxattr(name, "user.shared", pattern(300, 2))
    write("many")
    for number in range(block_bytes // 64):
        os.setxattr("many", f"user.n{number}", b"v")
    write("long-name")
    os.setxattr("long-name", "user." + "n" * 250, b"value")
    attempt("trusted attribute", os.setxattr, "small", "trusted.overlay.opaque", b"y")
    os.mkdir("on-directory")
    os.setxattr("on-directory", "user.directory", b"d")
    os.symlink("nowhere", "on-symlink")
    attempt("attribute of a symlink", os.setxattr, "on-symlink", "trusted.link", b"l",
            follow_symlinks=False)
    os.chdir("..")


def times():
    make_directory("times")
    second = 1_000_000_000
    for name, ns in {
        "1901-first": -(1 << 31) * second,
        "1960": -315_619_200 * second + 5,
        "1969-last": -1,
        "1970": 0,
        "2038-before": ((1 << 31) - 1) * second + 999_999_999,
        "2038-after": (1 << 31) * second,
        "2040": 2_208_988_800 * second + 123_456_789,
        "2106-edge": (1 << 32) * second + 1,
        "2445": 14_989_449_600 * second + 987_654_321,
    }.items():
        write(name, name.encode())
        os.utime(name, ns=(ns, ns))
    os.symlink("1960", "symlink")
    os.utime("symlink", ns=(42, 42), follow_symlinks=False)
    os.chdir("..")


def wide():
    make_directory("wide")
    for number in range(3000):
        write(f"entry-{number:04d}-" + "w" * (number % 60), f"{number}".encode())
    os.mkdir("directories")
    for number in range(400):
        os.mkdir(f"directories/d{number}")
    os.chdir("..")


def deep():
    """45 levels of 120 bytes: deeper than PATH_MAX."""
    here = os.open(".", os.O_RDONLY)
    make_directory("deep")
    for level in range(45):
        make_directory(f"{level:03d}-" + "d" * 116)
    write("bottom", b"here")
    os.fchdir(here)
    os.close(here)


def settle(directory):
    """Gives everything without a time of its own a fixed one, children before their directory."""
    for name in os.listdir(directory):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
            if name != "times":
                settle(child)
            os.close(child)
        ns = 1_700_000_000_000_000_000 + len(name)
        os.utime(name, ns=(ns, ns), dir_fd=directory, follow_symlinks=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    parser.add_argument("--block", type=int, default=4096, choices=[1024, 2048, 4096])
    parser.add_argument("--without", choices=["deep"], action="append", default=[])
    options = parser.parse_args()
    os.umask(0o022)
    os.mkdir(options.directory)
    os.chdir(options.directory)
    names()
    sizes()
    sparse()
    links()
    special()
    metadata()
    attributes(options.block)
    times()
    wide()
    if "deep" not in options.without:
        deep()
    os.mkdir("empty")
    root = os.open(".", os.O_RDONLY)
    settle(root)
    os.utime(".", ns=(1_600_000_000_000_000_001, 1_600_000_000_000_000_001))
    os.chmod(".", 0o750)


main()
