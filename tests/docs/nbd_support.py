#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""tests/docs/nbd_support.py SOURCES: the tests that docs/nbd-support.md names exist.

In the last column of its tables, `x_test` is a file, and each text in quotes behind it the beginning of a title there.
"""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
titles = {}
for room in ("block", "cli", "exports", "fsgen", "nbd", "net"):
    for file in sorted((root / room).rglob("*_test.cpp")):
        titles.setdefault(file.stem, []).extend(re.findall(r'TEST_CASE\("((?:[^"\\]|\\.)*)"', file.read_text()))

failures = []
named = 0
for line in (root / "docs/nbd-support.md").read_text().splitlines():
    if not line.startswith("|"):
        continue
    file = ""
    for path, title in re.findall(r'`([a-z_0-9/]+_test)`|"([^"]+)"', line.split("|")[-2]):
        if path:
            file = path.split("/")[-1]
            if file not in titles:
                failures.append(f"there is no {path}")
        elif file:
            named += 1
            if not any(known.startswith(title) for known in titles.get(file, [])):
                failures.append(f'{file} has no "{title}"')
if named < 50:
    failures.append(f"only {named} tests were found in the tables")

print("\n".join(failures), end="\n" if failures else "")
sys.exit(1 if failures else 0)
