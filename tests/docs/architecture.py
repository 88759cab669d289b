#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""tests/docs/architecture.py SOURCES: docs/architecture.md draws the rooms as they are linked.

- The drawing names each room once, and a room uses rooms on lower lines only.
- The table's "may use" column has the rooms that a room links itself, but for `all`.
"""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
failures = []


def used_in(words, keywords):
    """The rooms behind these keywords of a CMake call."""
    used = []
    keyword = ""
    for word in words:
        if re.fullmatch("[A-Z_]+", word):
            keyword = word
        elif keyword in keywords and word.startswith("mkvirtfs_"):
            used.append(word)
    return used


def linked_rooms():
    """{folder: folders that it links}, from the CMakeLists.txt of the rooms."""
    folders = {}
    links = {}
    for file in sorted(root.glob("*/CMakeLists.txt")) + sorted(root.glob("*/*/CMakeLists.txt")):
        folder = str(file.parent.relative_to(root))
        if folder.split("/")[0] in ("build", "tests", "examples", "bench"):
            continue
        text = re.sub(r"#[^\n]*", "", file.read_text())
        room = re.search(r"\bmkvirtfs_room\((.*?)\)", text, re.DOTALL)
        program = re.search(r"\btarget_link_libraries\((.*?)\)", text, re.DOTALL)
        if room:
            name, *words = room[1].split()
            folders["mkvirtfs_" + name] = folder
            links[folder] = used_in(words, ("USES", "PRIVATE_USES"))
        elif program:
            links[folder] = used_in(program[1].split(), ("PRIVATE",))
    return {folder: {folders[target] for target in targets} for folder, targets in links.items()}


def drawn_lines(text):
    """The rooms on each line of the drawing, from the top down."""
    drawing = re.search(r"^## The house\n+```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    if not drawing:
        sys.exit("docs/architecture.md has no drawing below 'The house'")
    lines = []
    for line in drawing[1].splitlines():
        rooms = re.match(r" *((?:[a-z0-9/]+/ *)+)", line)
        if rooms:
            lines.append([room.rstrip("/") for room in rooms[1].split()])
    return lines


def table_rows(text):
    """{folder: the folders of "may use", or None for `all`}"""
    rows = {}
    for folder, uses in re.findall(r"^\| `([a-z0-9/]+)/` \|[^\n]*\| *([^|\n]*?) *\|$", text, re.MULTILINE):
        rows[folder] = None if uses == "all" else {use.rstrip("/") for use in
                                                   re.findall(r"`([a-z0-9/]+)`", uses)}
    return rows


links = linked_rooms()
text = (root / "docs/architecture.md").read_text()
if len(links) < 10:
    sys.exit(f"only {len(links)} rooms were found: {sorted(links)}")

level = {}
for number, rooms in enumerate(drawn_lines(text)):
    for room in rooms:
        if room in level:
            failures.append(f"the drawing has {room}/ twice")
        level[room] = number
for room in sorted(set(links) ^ set(level)):
    failures.append(f"{room}/ is " + ("not in the drawing" if room in links else "drawn, and is no room"))
for room, uses in sorted(links.items()):
    for used in sorted(uses):
        if room in level and used in level and level[used] <= level[room]:
            failures.append(f"{room}/ uses {used}/, which is not drawn below it")

rows = table_rows(text)
for room, uses in sorted(links.items()):
    if room not in rows:
        failures.append(f"the table has no row for {room}/")
    elif rows[room] is not None and rows[room] != uses:
        failures.append(f"{room}/ links {sorted(uses)}, and the table says {sorted(rows[room])}")

print("\n".join(failures), end="\n" if failures else "")
sys.exit(1 if failures else 0)
