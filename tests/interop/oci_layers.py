#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""oci_layers.py DIRECTORY: writes layers of a container image there, 1.tar, 2.tar and so on.

All that a layer can do to those below it: whiteouts before and after what they must not touch, opaque
directories, links across layers, files that become directories and back.
"""
import io
import sys
import tarfile


class Layer:
    def __init__(self, number):
        self.tar = tarfile.open(f"{sys.argv[1]}/{number}.tar", "w", format=tarfile.PAX_FORMAT)
        self.time = 1500000000 + number * 1000

    def add(self, name, type, mode, content=b"", target="", owner=(0, 0)):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname = type, mode, target
        info.uid, info.gid = owner
        info.size = len(content)
        self.time += 1
        info.mtime = self.time + (0.25 if mode & 1 else 0)
        self.tar.addfile(info, io.BytesIO(content))

    def directory(self, name, mode=0o755, owner=(0, 0)):
        self.add(name, tarfile.DIRTYPE, mode, owner=owner)

    def file(self, name, content, mode=0o644, owner=(0, 0)):
        self.add(name, tarfile.REGTYPE, mode, content.encode(), owner=owner)

    def symlink(self, name, target):
        self.add(name, tarfile.SYMTYPE, 0o777, target=target)

    def link(self, name, target):
        self.add(name, tarfile.LNKTYPE, 0o644, target=target)

    def fifo(self, name):
        self.add(name, tarfile.FIFOTYPE, 0o600)

    def whiteout(self, name):
        self.add(name, tarfile.REGTYPE, 0)


one = Layer(1)
one.directory("./")
for name in "etc", "etc/conf.d", "opt", "opt/app", "opt/app/deep", "usr", "usr/lib", "was-directory", "cache", "gone":
    one.directory(name)
one.file("etc/hosts", "one\n")
one.file("etc/conf.d/a", "one\n")
one.file("etc/conf.d/b", "one\n", owner=(7, 8))
one.file("opt/app/old", "old\n")
one.file("opt/app/deep/older", "older\n")
one.file("usr/lib/large", "0123456789abcdef" * 50000, mode=0o755)
one.link("usr/lib/again", "usr/lib/large")
one.file("was-directory/inside", "inside\n")
one.file("was-file", "file\n")
one.symlink("was-link", "etc")
one.file("cache/x", "x\n")
one.file("gone/x", "x\n")
one.fifo("pipe")
one.file("n" * 120, "long name\n", mode=0o4755)

two = Layer(2)
two.directory("opt/app", mode=0o700, owner=(1000, 1000))  # before the whiteout of what was there
two.file("opt/app/new", "new\n", owner=(1000, 1000))
two.whiteout("opt/.wh.app")
two.directory("cache", mode=0o711)
two.file("cache/y", "y\n")
two.whiteout("cache/.wh..wh..opq")  # in the middle
two.file("cache/z", "z\n")
two.directory("etc")
two.directory("etc/conf.d", mode=0o750)
two.whiteout("etc/conf.d/.wh.a")
two.file("etc/conf.d/c", "two\n")
two.directory("usr")
two.directory("usr/lib")
two.link("usr/lib/third", "usr/lib/large")
two.file("was-directory", "file now\n")
two.directory("was-file")
two.file("was-file/inside", "inside\n")
two.directory("was-link")
two.file("was-link/inside", "inside\n")
two.whiteout(".wh.gone")

three = Layer(3)
three.directory("etc")
three.file("etc/hosts", "three\n", mode=0o600)
three.directory("usr")
three.directory("usr/lib")
three.file("usr/lib/large", "replaced\n")
three.directory("usr/share")
three.symlink("usr/share/link", "../../../outside")
three.symlink("was-file", "etc/hosts")

for layer in one, two, three:
    layer.tar.close()
