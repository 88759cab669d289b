#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# torture.sh FS BLOCK-BYTES [OPTION...]: a tree of everything hard, dumped: e2fsck finds nothing, and
# what debugfs reads back is the source, to the last nanosecond and attribute.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

fs=$1 block=$2
shift 2
"$here/torture_tree.py" "$work/tree" --block "$block"
"$MKVIRTFS" dump "$work/tree" --fs="$fs" --block-size="$block" "$@" -o "$work/image"

e2fsck -fn "$work/image" >"$work/fsck" 2>&1 || { cat "$work/fsck" >&2; fail "e2fsck"; }
# Its five passes and the summary, nothing else.
unexpected=$(grep -vE '^(e2fsck 1|Pass [1-5]|.*: [0-9]+/[0-9]+ files .* blocks$|$)' "$work/fsck" || true)
[[ ! $unexpected ]] || fail "e2fsck says: $unexpected"
contains "$(dumpe2fs -h "$work/image" 2>&1)" "Block size: +$block"

"$MANIFEST" "$work/tree" >"$work/expected"
if [[ " $* " == *" --inode-size=128 "* ]]; then
  # Inodes that small hold 32 bits of seconds: later times are the last one, fractions are lost.
  perl -pi -e 's/mtime=(-?\d+)\.\d+/"mtime=".($1 > 2147483647 ? 2147483647 : $1).".000000000"/e' \
    "$work/expected"
fi
python3 "$here/debugfs_manifest.py" "$work/image" >"$work/found"
diff "$work/expected" "$work/found" >"$work/diff" ||
  { cut -c1-300 "$work/diff" | head -n 20 >&2; fail "debugfs finds another tree"; }
