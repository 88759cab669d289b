#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# inspect says what dump makes, for people and for programs.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 --label=inspected -o "$work/image"
"$MKVIRTFS" inspect "$work/tree" --fs=ext4 --label=inspected >"$work/text"
"$MKVIRTFS" inspect "$work/tree" --fs=ext4 --label=inspected --json >"$work/json"
uuid=$(dumpe2fs -h "$work/image" 2>/dev/null | awk '/UUID/ {print $3}')
contains "$(cat "$work/text")" "$uuid"
contains "$(cat "$work/text")" 'inspected'
python3 - "$work/json" "$(stat -c %s "$work/image")" "$uuid" <<'END'
import json, sys
with open(sys.argv[1]) as file:
    facts = json.load(file)
flat = json.dumps(facts)
assert sys.argv[2] in flat, f"the size {sys.argv[2]} is not in {flat}"
assert sys.argv[3] in flat, f"the UUID {sys.argv[3]} is not in {flat}"
END

# Which file is at this block: debugfs and mkvirtfs agree.
block=$(debugfs -R 'bmap /noise 10' "$work/image" 2>/dev/null)
contains "$("$MKVIRTFS" inspect "$work/tree" --fs=ext4 --label=inspected --map $((block * 4096)))" 'noise'
contains "$("$MKVIRTFS" inspect "$work/tree" --fs=ext4 --label=inspected --map 1024)" '[Ss]uperblock'
contains "$("$MKVIRTFS" inspect "$work/tree" --fs=ext4 --label=inspected --map)" 'noise'
"$MKVIRTFS" inspect "$work/tree" --map >/dev/null

# What no image shows is counted on one line, by every subcommand, and listed for every format.
python3 - "$work/apple.tar" <<'PYTHON'
import sys, tarfile
with tarfile.open(sys.argv[1], "w", format=tarfile.PAX_FORMAT) as tar:
    info = tarfile.TarInfo("Autounattend.xml")
    info.type, info.linkname = tarfile.SYMTYPE, "real"
    tar.addfile(info)
    info = tarfile.TarInfo("n" * 80 + ".txt")
    info.pax_headers = {"SCHILY.xattr.com.apple.FinderInfo": "x", "SCHILY.xattr.user.kept": "y"}
    tar.addfile(info)
PYTHON
for format in ext2 ext3 ext4 fat32 iso; do
  "$MKVIRTFS" inspect "$work/apple.tar" "--fs=$format" --differences >"$work/list" 2>"$work/stderr"
  contains "$(cat "$work/list")" '^dropped .*\.txt loses its extended attributes: com\.apple\.FinderInfo$'
  "$MKVIRTFS" dump "$work/apple.tar" "--fs=$format" --force -o "$work/image" 2>"$work/stderr"
  contains "$(cat "$work/stderr")" 'extended attributes that Linux has no name for, of 1 entry'
done
contains "$(cat "$work/list")" '^skipped +Autounattend\.xml is a symlink, which Joliet lacks$'
contains "$(cat "$work/list")" '^mapped .* is named n+\.txt in Joliet$'
contains "$(cat "$work/stderr")" 'left out of Joliet: 1 symlink; 1 name was changed in Joliet'
joliet=$(isoinfo -J -f -i "$work/image" 2>/dev/null)
[[ $joliet != *Autounattend* ]] || fail "Joliet has the symlink"
contains "$(cat "$work/list")" "is named $(tail -n 1 <<<"$joliet" | sed 's,^/,,; s/;1$//') in Joliet"
start_server "$work/apple.tar" --fs=iso -U "$work/socket"
contains "$(cat "$server_log")" 'left out of Joliet: 1 symlink'
stop_server
"$MKVIRTFS" inspect "$work/apple.tar" --no-xattrs >"$work/list" 2>"$work/stderr"
[[ ! -s $work/stderr ]] || fail "attributes that nobody wants: $(cat "$work/stderr")"
