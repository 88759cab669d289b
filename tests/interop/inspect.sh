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
