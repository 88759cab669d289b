#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""iso_manifest.py rock|joliet <MANIFEST: what `manifest` would print of an ISO image of the tree that
it printed this of, mounted by Linux with Rock Ridge, or with Joliet as UTF-8: sorted.

Linux shows hard links as files of their own, and times in whole seconds of 32 bits. Of names it
shows 253 bytes. Of Joliet it shows directories and files with plain names; this takes only
trees whose names need no change but the ones below. Knows nothing of mkvirtfs but its pages.
"""
import re
import sys


def unescaped(shown):
    return re.sub(rb"\\x(..)", lambda match: bytes([int(match[1], 16)]), shown.encode())


def escaped(raw):
    return "".join(chr(byte) if 32 < byte < 127 and byte != 92 else f"\\x{byte:02x}"
                   for byte in raw)


def seconds_of(mtime):
    whole = min(int(mtime.split(".")[0]), 5869583999)  # the end of 2155
    return (whole + (1 << 31)) % (1 << 32) - (1 << 31)


def main():
    rock = sys.argv[1] == "rock"
    lines = {}
    for line in sys.stdin.read().splitlines():
        path, words = line.split(" ", 1)
        if words.startswith("same-as "):
            if words.split(" ")[1] in lines:
                lines[path] = lines[words.split(" ")[1]]
            continue
        fields = dict(word.split("=", 1) for word in words.split(" ") if "=" in word)
        mode = int(fields["mode"], 8)
        kind = mode & 0o170000
        out = f"mtime={seconds_of(fields['mtime'])}.000000000"
        if rock:
            out = f"mode={fields['mode']} owner={fields['owner']} {out}"
            for word in ["links", "size", "content", "target", "device"]:
                if word in fields:
                    out += f" {word}={fields[word]}"
        else:
            if kind not in (0o100000, 0o040000):
                continue
            out = f"mode={'040555' if kind == 0o040000 else '100555'} owner=0:0 {out}"
            if kind == 0o100000:
                out += f" links=1 size={fields['size']} content={fields['content']}"
        lines[path] = out
    sys.stdout.write("".join(sorted(
        "/".join(escaped(unescaped(part)[:253]) for part in path.split("/")) + f" {words}\n"
        for path, words in lines.items())))


main()
