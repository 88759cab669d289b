#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Law 1: the image is a function of the source's content and the options.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

"$here/torture_tree.py" "$work/tree" --block 1024 --without deep  # which is too deep for cp
# Another path, other inode numbers, another order of the directories, made at another time.
cp -a "$work/tree" "$work/an-elaborate-other-name"

sum() { "$MKVIRTFS" dump "$@" --free=1M -o - | sha256sum; }
uuid() { "$MKVIRTFS" inspect "$@" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["image"]["uuid"])'; }

for fs in ext2 ext3 ext4; do
  first=$(sum "$work/tree" --fs=$fs)
  equal "$(sum "$work/tree" --fs=$fs)" "$first" "the second dump as $fs"
  equal "$(taskset -c 0 "$MKVIRTFS" dump "$work/tree" --fs=$fs --free=1M -o - | sha256sum)" "$first" "one processor"
  equal "$(sum "$work/an-elaborate-other-name" --fs=$fs)" "$first" "a copy elsewhere"
  equal "$(cd "$work/tree" && sum . --fs=$fs)" "$first" "called from inside"
  equal "$(TZ=Asia/Tokyo LC_ALL=C.UTF-8 sum "$work/tree" --fs=$fs)" "$first" "another zone and locale"
  equal "$(uuid "$work/tree" --fs=$fs)" "$(uuid "$work/an-elaborate-other-name" --fs=$fs)" "UUID"
done

# As many threads as you like, or none but its own: no stack of a thread has room where `ulimit -s` is an address space. A
# directory of the tree is long enough to be shared out among the scanner's threads, all of them among the ext planner's.
python3 - "$work/many" <<'END'
import os, sys
for directory in range(12):
    below = f"{sys.argv[1]}/directory-{directory}"
    os.makedirs(below)
    for number in range(5000):
        os.close(os.open(f"{below}/file-{number}", os.O_CREAT | os.O_WRONLY))
for number in range(40):
    with open(f"{sys.argv[1]}/data-{number}", "wb") as file:
        file.write(bytes([number]) * (number * 37777))
END
for fs in ext2 ext3 ext4 fat12 fat16 fat32; do
  first=$(sum "$work/many" --fs=$fs --threads=1)
  for threads in 2 16; do
    equal "$(sum "$work/many" --fs=$fs --threads=$threads)" "$first" "$threads threads and one, as $fs"
  done
done
iso_sum() { "$MKVIRTFS" dump "$@" --fs=iso -o - | sha256sum; }
first=$(iso_sum "$work/many" --threads=1)
for threads in 2 16; do
  equal "$(iso_sum "$work/many" --threads=$threads)" "$first" "$threads threads and one, as iso"
done
erofs_sum() { "$MKVIRTFS" dump "$@" --fs=erofs -o - | sha256sum; }
for option in --inode-times=keep --tail-packing --dedupe; do
  first=$(erofs_sum "$work/many" --threads=1 $option)
  for threads in 2 16; do
    equal "$(erofs_sum "$work/many" --threads=$threads $option)" "$first" "$threads threads and one, as erofs $option"
  done
done
tar -C "$work" -cf "$work/many.tar" many
xz -T0 --block-size=200KiB "$work/many.tar"
first=$(iso_sum "$work/many.tar.xz" --threads=1)
for threads in 2 16; do
  equal "$(iso_sum "$work/many.tar.xz" --threads=$threads --cache-dir=none)" "$first" "$threads threads and one, of a .tar.xz"
done
if (ulimit -s 137438953472) 2>/dev/null; then
  for source in many many.tar.xz; do
    first=$(iso_sum "$work/$source" --threads=1 --cache-dir=none)
    equal "$(ulimit -s 137438953472; iso_sum "$work/$source" --threads=16 --cache-dir=none)" "$first" "no thread, and one"
    first=$(sum "$work/$source" --fs=ext4 --threads=1 --cache-dir=none)
    equal "$(ulimit -s 137438953472; sum "$work/$source" --fs=ext4 --threads=16 --cache-dir=none)" "$first" "no thread, and one"
  done
else
  skipped "a host that starts no thread"
fi

# What may change the image does change it, and its UUID.
before=$(uuid "$work/tree" --fs=ext4)
[[ $(uuid "$work/tree" --fs=ext4 --label=other) != "$before" ]] || fail "the label is not part of the UUID"
touch -d '2020-01-01' "$work/an-elaborate-other-name/sizes/1"
[[ $(uuid "$work/an-elaborate-other-name" --fs=ext4) != "$before" ]] || fail "a changed time changes nothing"

# The overrides.
fixed=01234567-89ab-4cde-8f01-23456789abcd
"$MKVIRTFS" dump "$work/tree" --fs=ext4 --uuid=$fixed --label=fixed -o "$work/image"
contains "$(dumpe2fs -h "$work/image" 2>/dev/null)" "Filesystem UUID: +$fixed"
contains "$(dumpe2fs -h "$work/image" 2>/dev/null)" 'volume name: +fixed'
SOURCE_DATE_EPOCH=1500000000 "$MKVIRTFS" dump "$work/tree" --fs=ext4 -o "$work/image" --force
contains "$(TZ=UTC dumpe2fs -h "$work/image" 2>/dev/null)" 'created: +Fri Jul 14 02:40:00 2017'
# Later times become that one: sizes/* is of 2023.
contains "$(TZ=UTC debugfs -R 'stat sizes/1' "$work/image" 2>/dev/null)" 'mtime: 0x59682f00:00000000'
