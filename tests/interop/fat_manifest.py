#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""fat_manifest.py <MANIFEST: what `manifest` would print of a FAT image of the tree that it printed
this of, mounted by Linux with utf8 and tz=UTC: sorted.

Links, devices and files of 4 GiB and more are gone, hard links are files, names are mapped, and of
the metadata only time and the read-only bit are left. Knows nothing of mkvirtfs but its pages.
"""
import re
import sys

FIRST, LAST = 315532800, 4354819198  # what FAT can say of time, in steps of two seconds
FORBIDDEN = set('"*:<>?\\|')


def mapped(raw):
    """The UTF-8 bytes of the name that stands in the image."""
    out = ""
    text = raw.decode("utf-8", "surrogateescape")
    for at, character in enumerate(text):
        last = at == len(text) - 1
        code = ord(character)
        if code < 0x20 or character in FORBIDDEN or (last and character in ". "):
            out += chr(0xF000 + code)
        elif 0xF000 < code <= 0xF0FF or code == 0xFFFF or 0xDC80 <= code <= 0xDCFF:
            out += "".join(chr(0xF000 + byte)
                           for byte in character.encode("utf-8", "surrogateescape"))
        else:
            out += character
    return out.encode("utf-8")


def unescaped(shown):
    return re.sub(rb"\\x(..)", lambda match: bytes([int(match[1], 16)]), shown.encode())


def escaped(raw):
    return "".join(chr(byte) if 32 < byte < 127 and byte != 92 else f"\\x{byte:02x}"
                   for byte in raw)


def shown_in_fat(path):
    return path if path == "." else "/".join(escaped(mapped(unescaped(part)))
                                             for part in path.split("/"))


def main():
    lines = {}
    for line in sys.stdin.read().splitlines():
        path, words = line.split(" ", 1)
        if words.startswith("same-as "):
            # The first name may be one that is left out.
            if words.split(" ")[1] in lines:
                lines[path] = lines[words.split(" ")[1]]
            continue
        fields = dict(word.split("=", 1) for word in words.split(" "))
        mode = int(fields["mode"], 8)
        kind = mode & 0o170000
        size = int(fields.get("size", 0))
        if kind not in (0o100000, 0o040000) or size >= 1 << 32:
            continue
        seconds = int(fields["mtime"].split(".")[0])
        seconds = min(max(seconds, FIRST), LAST) // 2 * 2
        if path == ".":
            seconds = 0  # the root has no entry, hence no time
        shown = 0o040755 if kind == 0o040000 else 0o100755 if mode & 0o222 else 0o100555
        out = f"mode={shown:06o} owner=0:0 mtime={seconds}.000000000"
        if kind == 0o100000:
            out += f" links=1 size={size} content={fields['content']}"
        lines[path] = out
    sys.stdout.write("".join(sorted(f"{shown_in_fat(path)} {words}\n"
                                    for path, words in lines.items())))


main()
