#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""No text of the library names an option of the command line.

What would help is data (Error::at_fault, Error::hints, LogSink::write_with_hints()): the command line
words it, and other programs set a field. Rows of options are exempt: their help and manual are texts
of the command line. An argument is the root of the sources.
"""

import pathlib
import re
import sys

ROOMS = ["support", "block", "exports", "net", "nbd", "fsgen", "bootsect", "compose"]

# A comment, a character, or a run of literals that the compiler joins, with the field that it is for.
TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\\n])+'(?![0-9])"""
    r"""|(?P<field>\.(?:help|manual|note|remark)\s*=\s*)?(?P<literals>"(?:\\.|[^"\\\n])*"(?:\s*"(?:\\.|[^"\\\n])*")*)""",
    re.DOTALL,
)
OPTION = re.compile(r"(?<![-\w])--[a-z][a-z-]+|\((?:try|see) ")


def texts_with_options(source):
    """Yields (line, text) of each literal that words an option."""
    for token in TOKEN.finditer(source):
        if token["literals"] is None or token["field"]:
            continue
        pieces = re.findall(r'"((?:\\.|[^"\\])*)"', token["literals"])
        # Manuals that are constants have options between backquotes.
        text = re.sub(r"`[^`]*`", "", "".join(pieces))
        if OPTION.search(text):
            yield source.count("\n", 0, token.start("literals")) + 1, "".join(pieces)


def check_self():
    """What must be found, and what must not."""
    found = [
        'fail(code, "too many (try --exclude)");',
        'fail(code, "too many "\n  "members (--max" "-entries)");',
        'log.write("left alone (see the manual)");',
        "auto mark = 'x'; f(\"--size=5: too small\");",
    ]
    passed = [
        "f(); // --size says it",
        '{.help = "implies --fs=iso", .manual = "As "\n  "--size."}',
        'text = "`--size` and `--free`";',
        'text = "a--b -- c"; --count;',
        "split = 1'000'000; f(\"good\"); /* \"--size\" */",
    ]
    for source in found:
        assert list(texts_with_options(source)), source
    for source in passed:
        assert not list(texts_with_options(source)), source


def main():
    check_self()
    root = pathlib.Path(sys.argv[1])
    status = 0
    read = 0
    for room in ROOMS:
        for path in sorted((root / room).rglob("*")):
            is_code = path.suffix in (".h", ".cpp") and not path.stem.endswith("_test")
            if not is_code or "testing" in path.relative_to(root).parts:
                continue
            read += 1
            for line, text in texts_with_options(path.read_text(encoding="utf-8")):
                print(f'{path.relative_to(root)}:{line}: names an option: "{text}"', file=sys.stderr)
                status = 1
    if read == 0:
        sys.exit("no source was found")
    sys.exit(status)


main()
