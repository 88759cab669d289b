#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# FAT from outside: 100,000 files go in by dump and come out of mtools; serving gives the same bytes;
# what is left out or mapped is reported; nothing else is.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

# fsck.fat describes the volume; anything beyond that is an objection.
fsck_is_silent() {
  fsck.fat -nv "$1" >"$work/fsck" 2>&1 || { cat "$work/fsck" >&2; fail "fsck.fat $1"; }
  local unexpected
  unexpected=$(grep -vE "^(fsck\.fat |Checking |Starting |Boot sector |System ID |Media byte | |First FAT |Root directory |Data area |[0-9]+ sectors/track|$1: [0-9]+ files)" \
    "$work/fsck" || true)
  [[ ! $unexpected ]] || fail "fsck.fat says: $unexpected"
}

# Many files, names of all lengths; in memory if there is some, for a busy disk takes minutes.
fast=$work
if (($(df --output=avail /dev/shm 2>/dev/null | tail -n 1) > 1500000)); then
  fast=$(mktemp -d /dev/shm/mkvirtfs-XXXXXX)
  at_exit() { rm -rf "$fast"; }
fi
python3 - "$fast/many" <<'END'
import os, sys
for directory in range(200):
    below = f"{sys.argv[1]}/directory {directory}"
    os.makedirs(below)
    for number in range(500):
        kind = number % 4
        name = [f"F{number}.TXT", f"file-{number}", f"A file with a long name {number}.text",
                f"{'n' * (number % 200)}{number}"][kind]
        with open(f"{below}/{name}", "w") as file:
            file.write(f"{directory} {number}\n" * (number % 5 == 0) * (number % 7))
END
find "$fast/many" -exec touch -h -d '2024-02-03 04:05:06 UTC' {} +
"$MKVIRTFS" dump "$fast/many" --fs=fat32 -o "$work/fat32.img" >"$work/out" 2>"$work/err"
[[ ! -s $work/err ]] || fail "dump said: $(cat "$work/err")"
fsck_is_silent "$work/fat32.img"
contains "$(cat "$work/fsck")" ': 100200 files'
mkdir "$fast/back"
TZ=UTC LC_ALL=C.UTF-8 mcopy -s -n -m -i "$work/fat32.img" '::*' "$fast/back"
diff -r "$fast/many" "$fast/back" || fail "mtools found other files"
rm -rf "$fast/back"
start_server "$fast/many" --fs=fat32 -U "$work/sock"
nbdcopy "$uri" "$work/served.img"
same "$work/served.img" "$work/fat32.img"
stop_server

# A tree of everything hard: what cannot be held is reported in one line, listed on request.
"$here/torture_tree.py" "$work/tree" --without deep
fails 1 'sparse/6-gib is 6442450944 bytes; FAT files end at 4294967295.*--skip-unfit' \
  "$MKVIRTFS" dump "$work/tree" --fs=fat -o "$work/no.img"
for fs in fat16 fat32; do
  "$MKVIRTFS" dump "$work/tree" --fs=$fs --skip-unfit -o "$work/hard.img" --force \
    >"$work/out" 2>"$work/err"
  equal "$(wc -l <"$work/err")" 1 "lines on stderr: $(cat "$work/err")"
  contains "$(cat "$work/err")" 'left out: [0-9]+ symlinks, .*1 entry too large for FAT; [0-9]+ names were mapped'
  fsck_is_silent "$work/hard.img"
done
"$MKVIRTFS" inspect "$work/tree" --fs=fat --skip-unfit --differences >"$work/list" 2>/dev/null
contains "$(cat "$work/list")" '^skipped +sparse/6-gib is larger than FAT files can be'
contains "$(cat "$work/list")" '^skipped +special/fifo is a FIFO'
contains "$(cat "$work/list")" '^mapped +names/\* is named <U\+F02A>'
"$MKVIRTFS" inspect "$work/tree" --fs=fat --skip-unfit --json 2>/dev/null >"$work/facts"
"$MKVIRTFS" inspect "$work/tree" --fs=fat --skip-unfit --differences --json 2>/dev/null |
  python3 -c 'import json, sys; facts = json.load(open(sys.argv[1]))["image"]
rows = json.load(sys.stdin)
kinds = [row["kind"] for row in rows]
assert kinds.count("mapped") == facts["mapped_name_count"] > 5, kinds
assert kinds.count("skipped") == facts["skipped_count"] > 5, kinds' "$work/facts"

# Followed, a directory of links is one of copies; nothing outside is ever read.
mkdir -p "$work/links/real/below" && echo inside >"$work/links/real/below/file"
ln -s real "$work/links/copy" && ln -s /real/below/file "$work/links/rooted"
"$MKVIRTFS" dump "$work/links" --fs=fat --symlinks=follow -o "$work/links.img" >/dev/null
for path in real/below/file copy/below/file rooted; do
  equal "$(mtype -i "$work/links.img" "::$path")" inside "$path"
done
ln -s /etc/passwd "$work/links/outside"
fails 1 'outside is a symlink to what is not in the source' \
  "$MKVIRTFS" dump "$work/links" --fs=fat --symlinks=follow -o "$work/no.img"
rm "$work/links/outside" && ln -s ../../etc/passwd "$work/links/outside"
fails 1 'outside is a symlink that leads out of the source' \
  "$MKVIRTFS" dump "$work/links" --fs=fat --symlinks=follow -o "$work/no.img"

# Law 1: not even the time zone of the host is seen, unless it is asked for.
"$MKVIRTFS" dump "$work/tree" --fs=fat16 --skip-unfit -o "$work/one.img" >/dev/null 2>&1
TZ=Asia/Tokyo "$MKVIRTFS" dump "$work/tree" --fs=fat16 --skip-unfit -o "$work/two.img" \
  >/dev/null 2>&1
same "$work/one.img" "$work/two.img"
TZ=JST-9 "$MKVIRTFS" dump "$work/links/real" --fs=fat12 --time-zone=local --uuid=1-2 -o "$work/x.img" \
  >/dev/null 2>&1 && fail "a bad volume id was taken"
TZ=JST-9 "$MKVIRTFS" dump "$work/links/real" --fs=fat12 --time-zone=local --uuid=00010002 \
  -o "$work/local.img" >/dev/null
"$MKVIRTFS" dump "$work/links/real" --fs=fat12 --time-zone=+09:00 --uuid=0001-0002 \
  -o "$work/fixed.img" >/dev/null
same "$work/local.img" "$work/fixed.img"

# What ext calls the smallest size is an image without room here.
fails 2 '--size=min: FAT is as small as it can be when no room is left \(try --free=0\)' \
  "$MKVIRTFS" dump "$work/links/real" --fs=fat16 --size=min -o "$work/no.img"
"$MKVIRTFS" dump "$work/links/real" --fs=fat16 --free=0 -o "$work/least.img" >/dev/null
fsck.fat -n "$work/least.img" >/dev/null || fail "the smallest FAT"
