# SPDX-License-Identifier: BSD-3-Clause
"""recipes.py OUT FILE...: takes every recipe out of Markdown files and manual pages.

Each is written, as a reader would type it, to OUT/NUMBER, and what it is said to print to
OUT/NUMBER.output; a line for each on stdout has its number, a tab, and where it stands. Recipes are

- in Markdown, the parts between empty lines of a block that is marked as sh; what follows "$ " in
  an unmarked block, with the lines until the next one as its output; and a code span that is a whole
  command of ours: `mkvirtfs SUBCOMMAND` with arguments, none of which is a placeholder in capitals;
- in a manual page, what stands between .EX and .EE.

Other blocks must not look like commands: then the mark is missing, and it is an error.
"""
import re
import sys

SUBCOMMAND = re.compile(r"mkvirtfs (serve|dump|boot|inspect|ls|cat|stat|extract|list|ctl|overlay) ")
PLACEHOLDER = re.compile(r"(?<!-)\b[A-Z]+\b")


def fail(where, what):
    sys.exit(f"{where}: {what}")


def from_block(mark, lines, where):
    """(text, output or None) of each recipe in a fenced block."""
    if mark == "sh":
        for part in re.split(r"\n(?:[ \t]*\n)+", "\n".join(lines).strip("\n")):
            yield part + "\n", None
    elif any(line.startswith("$ ") for line in lines):
        text, output = None, []
        for line in [*lines, "$ "]:
            if line.startswith("$ "):
                if text is not None:
                    yield text, "".join(each + "\n" for each in output)
                text, output = line[2:] + "\n", []
            else:
                output.append(line)
    elif any(re.match(r"\s*(mkvirtfs|\./run|\./test) ", line) for line in lines):
        fail(where, "a block with commands is not marked as sh")


def from_markdown(text, name):
    block = None
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("```"):
            if block is None:
                block, mark, start = [], line[3:].strip(), number
            else:
                for recipe, output in from_block(mark, block, f"{name}:{start}"):
                    yield f"{name}:{start}", recipe, output
                block = None
        elif block is not None:
            block.append(line)
        else:
            for span in re.findall(r"`([^`]+)`", line):
                if SUBCOMMAND.search(span) and len(span.split()) > 3 and not PLACEHOLDER.search(span):
                    yield f"{name}:{number}", span + "\n", None
    if block is not None:
        fail(f"{name}:{start}", "the block has no end")


ESCAPES = {r"\-": "-", r"\e": "\\", r"\(aq": "'", r"\(dq": '"', r"\&": "", r"\(ti": "~", r"\(ha": "^"}


def from_manual(text, name):
    start = None
    for number, line in enumerate(text.split("\n"), 1):
        if line == ".EX":
            start, recipe = number, ""
        elif line == ".EE":
            yield f"{name}:{start}", recipe, None
            start = None
        elif start is not None:
            plain = re.sub(r"\\(\(..|.)", lambda found: ESCAPES.get(found[0], "\0"), line)
            if "\0" in plain:
                fail(f"{name}:{number}", "an escape that this program does not know")
            recipe += plain + "\n"


def main(out, names):
    number = 0
    for name in names:
        with open(name, encoding="utf-8") as file:
            text = file.read()
        extract = from_markdown if name.endswith(".md") else from_manual
        for where, recipe, output in extract(text, name):
            number += 1
            with open(f"{out}/{number}", "w", encoding="utf-8") as file:
                file.write(recipe)
            if output is not None:
                with open(f"{out}/{number}.output", "w", encoding="utf-8") as file:
                    file.write(output)
            print(f"{number}\t{where}")


main(sys.argv[1], sys.argv[2:])
