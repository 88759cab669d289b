#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# EROFS from outside: 100,000 files go in by dump, and fsck.erofs extracts them; serving gives the same bytes; with
# the ends of files packed the image is no larger than mkfs.erofs's; who wants to write is told what to use.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

fast=$work
if (($(df --output=avail /dev/shm 2>/dev/null | tail -n 1) > 2500000)); then
  fast=$(mktemp -d /dev/shm/mkvirtfs-XXXXXX)
  at_exit() { rm -rf "$fast"; }
fi
python3 - "$fast/many" <<'END'
import os, sys
for directory in range(100):
    below = f"{sys.argv[1]}/directory {directory}"
    os.makedirs(below)
    for number in range(1000):
        with open(f"{below}/A file with a long name {number}.text", "w") as file:
            file.write(f"{number}\n" * (number % 700 if number % 20 == 0 else 0))
END
find "$fast/many" -exec touch -h -d '2024-02-03 04:05:06.000000007 UTC' {} +
(cd "$fast/many" && "$MANIFEST" .) >"$work/source"

for option in --label=plain --tail-packing --dedupe; do
  rm -rf "$fast/image" "$fast/served" "$fast/out"
  "$MKVIRTFS" dump "$fast/many" --fs=erofs $option -o "$fast/image" >"$work/out" 2>"$work/err"
  [[ ! -s $work/err ]] || fail "dump said: $(cat "$work/err")"
  fsck.erofs --extract="$fast/out" --preserve "$fast/image" >"$work/fsck" 2>&1 || fail "fsck.erofs: $(cat "$work/fsck")"
  (cd "$fast/out" && "$MANIFEST" .) >"$work/extracted"
  same "$work/extracted" "$work/source"
  start_server "$fast/many" --fs=erofs $option -U "$work/sock"
  nbdcopy "$uri" "$fast/served"
  same "$fast/served" "$fast/image"
  stop_server
  eval "size_${option//[^a-z]/_}=$(stat -c %s "$fast/image")"
done
contains "$(dump.erofs -s "$fast/image")" 'Filesystem features: +sb_csum mtime *$'
# shellcheck disable=SC2154  # set by eval
((size___dedupe < size___label_plain)) || fail "equal files have blocks of their own: $size___dedupe"
mkfs.erofs "$fast/theirs" "$fast/many" >/dev/null 2>&1
theirs=$(stat -c %s "$fast/theirs")
# shellcheck disable=SC2154  # set by eval
((size___tail_packing * 100 <= theirs * 101)) || fail "$size___tail_packing bytes, and $theirs of mkfs.erofs"

# Files that changed are named, also those of which only the end is in the image.
mkdir "$work/changing"
echo one >"$work/changing/small"
start_server "$work/changing" --fs=erofs --tail-packing -U "$work/changing.sock"
echo two >>"$work/changing/small"
! nbdcopy "$uri" "$work/copy" 2>/dev/null || fail "a file that changed was read"
contains "$(cat "$server_log")" 'small changed'
stop_server

for fs in erofs iso; do
  start_server "$work/changing" --fs=$fs --rw -U "$work/rw-$fs"
  contains "$(cat "$server_log")" "warning: no system writes to .*: a client that is to write wants --fs=ext4, or an overlayfs"
  stop_server
done
start_server "$work/changing" --fs=erofs -U "$work/readonly"
[[ ! -s $server_log ]] || fail "the server said: $(cat "$server_log")"
stop_server
