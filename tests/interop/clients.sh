#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Foreign clients read what dump wrote: nbdinfo, nbdcopy, qemu-img, qemu-io, nbdkit's nbd plugin.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 -o "$work/dump"
size=$(stat -c %s "$work/dump")

start_server "$work/tree" --fs=ext4 -U "$work/sock"

contains "$(nbdinfo "$uri")" "export-size: $size"
contains "$(nbdinfo "$uri")" 'is_read_only: true'
equal "$(nbdinfo --size "$uri")" "$size" "nbdinfo --size"
nbdinfo --json "$uri" | python3 -c '
import json, sys
export = json.load(sys.stdin)["exports"][0]
assert export["export-size"] == int(sys.argv[1]), export
assert "base:allocation" in export["contexts"], export
assert export["is_read_only"] and export["can_multi_conn"], export' "$size"
nbdinfo --list --json "$uri" | python3 -c '
import json, sys
names = [export["export-name"] for export in json.load(sys.stdin)["exports"]]
assert len(names) == 1, names'
nbdinfo --is read-only "$uri"
nbdinfo --can multi-conn "$uri"
nbdinfo --can df "$uri"
equal "$(nbdinfo --map --json "$uri" |
  python3 -c 'import json, sys; print(sum(e["length"] for e in json.load(sys.stdin)))')" \
  "$size" "bytes that nbdinfo --map covers"

for options in --connections=1 --connections=4 --synchronous '--connections=4 --request-size=1048576'; do
  rm -f "$work/copy"
  # shellcheck disable=SC2086  # words
  nbdcopy $options "$uri" "$work/copy"
  same "$work/copy" "$work/dump"
done
# Holes arrive as holes: the copy takes no more of the disk than the dump.
(($(stat -c %b "$work/copy") <= $(stat -c %b "$work/dump") + 512)) || fail "the copy is not sparse"

contains "$(qemu-img info "$uri")" "virtual size: .*\($size bytes\)"
qemu-img compare -f raw -F raw "$uri" "$work/dump" >"$work/out" || fail "$(cat "$work/out")"
qemu-img map --output=json "$uri" | python3 -c '
import json, sys
extents = json.load(sys.stdin)
assert extents[-1]["start"] + extents[-1]["length"] == int(sys.argv[1]), extents[-1]
assert any(e["zero"] and not e["data"] for e in extents), "no hole"
assert any(e["data"] for e in extents), "no data"' "$size"
# 0xEF53 is the magic number of ext, at byte 56 of the superblock.
contains "$(qemu-io -r -f raw -c 'read -v 1080 2' "$uri")" '53 ef'
contains "$(qemu-io -r -f raw -c "read 0 $size" -c 'read -P 0 0 1024' "$uri")" 'read 1024/1024'

# nbdkit as our client, and as somebody else's server.
# shellcheck disable=SC2016  # nbdkit gives $uri to its command
nbdkit -r -U - nbd "$uri" --run 'nbdcopy "$uri" -' | cmp - "$work/dump" || fail "through nbdkit nbd"

stop_server
[[ ! -e $work/sock ]] || fail "the socket was left behind"

# The same over TCP, on a port that the kernel chose.
start_server "$work/tree" --fs=ext4 -p 0
contains "$uri" '^nbd://(127\.0\.0\.1|localhost|\[::1\]):[1-9][0-9]*'
nbdcopy "$uri" - | cmp - "$work/dump" || fail "over TCP"
stop_server
