#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# With too little memory every subcommand ends with one line that says so and what was being done, in
# whatever thread that happens; none is aborted.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

mkdir "$work/tree"
python3 - "$work/tree" <<'END'
import os, sys
for d in range(20):
    os.mkdir(f"{sys.argv[1]}/{d}")
    for f in range(1500):
        open(f"{sys.argv[1]}/{d}/{f}-" + "x" * 120, "w").close()
END
tar -czf "$work/tree.tgz" -C "$work/tree" .
mkdir "$work/layout" && tar -cf "$work/tree.tar" -C "$work/tree" .

# with_memory KIB COMMAND...
with_memory() (
  ulimit -v "$1"
  shift
  # Arenas of glibc's malloc take address space that says nothing of memory.
  MALLOC_ARENA_MAX=1 exec "$@"
)
# The least with which the program starts at all.
least=20000
until with_memory "$least" "$MKVIRTFS" --version >"$work/out" 2>&1; do ((least += 2000)); done

# short_of_memory COMMAND...: at each limit it fails as it should, until one is enough.
short_of_memory() {
  local kib status refused=0
  for ((kib = least; ; kib += 2500)); do
    status=0
    with_memory "$kib" "$@" >"$work/stdout" 2>"$work/stderr" </dev/null || status=$?
    ((status != 0)) || break
    ((kib < 1000000)) || fail "never enough memory: $(cat "$work/stderr")"
    equal "$status" 1 "exit status of $* with $kib KiB: $(cat "$work/stderr")"
    # Where there is no memory for what was being done either, the text ends with the lack of it. libarchive
    # ends the process by itself, with a line of its own, where it has none for a name.
    contains "$(tail -n 1 "$work/stderr")" \
      'mkvirtfs: .*(out of memory(: [a-z]|$)|Cannot allocate memory|Resource temporarily unavailable)|^Fatal .* libarchive: Out of memory$'
    if grep -q 'out of memory' "$work/stderr"; then ((++refused)); fi
  done
  ((refused > 0)) || fail "$* was never out of memory"
}
for source in tree tree.tgz tree.tar; do
  short_of_memory "$MKVIRTFS" dump "$work/$source" --fs=ext4 -o "$work/image" --force --cache-dir=none
done
for format in fat32 iso; do
  short_of_memory "$MKVIRTFS" dump "$work/tree" --fs=$format -o "$work/image" --force
done
short_of_memory "$MKVIRTFS" inspect "$work/tree" --fs=ext4
short_of_memory "$MKVIRTFS" serve "$work/tree" --fs=ext4 --run true

# A path of 100 KB, of which only the middle is missing in the message.
long=$(head -c 100000 /dev/zero | tr '\0' p)
fails 1 "^mkvirtfs: open the directory ppp.* \[\.\.\. [0-9]+ bytes \.\.\.\] .*(does not exist|too long)" \
  "$MKVIRTFS" dump "$long" --fs=ext4 -o "$work/image"
(($(stat -c %s "$work/stderr") < 2200)) || fail "a message of $(stat -c %s "$work/stderr") bytes"
# So with a path inside an archive, which may have any length.
python3 - "$work/long.tar" <<'END'
import io, sys, tarfile
with tarfile.open(sys.argv[1], "w", format=tarfile.PAX_FORMAT) as tar:
    member = tarfile.TarInfo("begin/../" + "/".join(["q" * 200] * 500) + "/end")
    tar.addfile(member, io.BytesIO())
END
fails 1 'begin/.* bytes \.\.\.\]' "$MKVIRTFS" dump "$work/long.tar" --fs=ext4 -o "$work/image"
(($(stat -c %s "$work/stderr") < 2200)) || fail "a message of $(stat -c %s "$work/stderr") bytes"
