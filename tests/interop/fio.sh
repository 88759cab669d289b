#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# fio's nbd engine verifies reads: every block carries its own offset in the image.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

size=$((64 << 20))
mkdir "$work/tree"
truncate -s $size "$work/tree/data"
touch -d '2024-01-01' "$work/tree/data"
# Holes take no blocks and so have no place; data of the same size has one.
head -c $size < <(yes) >"$work/tree/data"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 -o "$work/image"
offset=$(($(debugfs -R 'bmap data 0' "$work/image" 2>/dev/null) * 4096))
equal "$(debugfs -R "bmap data $((size / 4096 - 1))" "$work/image" 2>/dev/null)" \
  $((offset / 4096 + size / 4096 - 1)) "the last block: the file lies in one piece"
python3 - "$work/tree/data" $offset $size <<'END'
import struct, sys
offset, size = int(sys.argv[2]), int(sys.argv[3])
with open(sys.argv[1], "wb") as file:
    for at in range(0, size, 4096):
        file.write(struct.pack("<Q", offset + at) * 512)
END

start_server "$work/tree" --fs=ext4 -U "$work/sock"
verify() {
  fio --name=verify --ioengine=nbd --uri="$uri" --rw="$1" --bs=4k --iodepth="$2" --numjobs="$3" \
    --offset="$offset" --size=$size --verify=pattern --verify_pattern="$4" --verify_fatal=1 \
    --time_based --runtime=4 --output="$work/fio.log"
}
verify randread 16 2 '%o' || fail "$(tail -n 20 "$work/fio.log")"
verify read 1 1 '%o' || fail "$(tail -n 20 "$work/fio.log")"
contains "$(grep -E 'read: IOPS' "$work/fio.log")" 'IOPS=[1-9]'
# It does look: another pattern is noticed.
if verify randread 1 1 '0x12345678' 2>"$work/stderr"; then fail "fio verified a wrong pattern"; fi
stop_server
