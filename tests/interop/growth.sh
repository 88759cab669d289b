# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC2154  # work is lib.sh's
# To be sourced behind lib.sh: what tests of growing ext images share.

# has_grown IMAGE BLOCKS: e2fsck finds nothing, the file system has so many blocks or nearly so many (a last
# group that is too small is left away), and it has not become meta_bg.
has_grown() {
  local image=$1 blocks=$2 found
  e2fsck -fn "$image" >"$work/e2fsck" 2>&1 || fail "$image: $(cat "$work/e2fsck")"
  dumpe2fs -h "$image" >"$work/dumpe2fs" 2>/dev/null
  if grep -q 'features:.*meta_bg' "$work/dumpe2fs"; then fail "$image has become meta_bg"; fi
  contains "$(cat "$work/dumpe2fs")" 'features:.*resize_inode'
  found=$(awk '/^Block count:/ {print $3}' "$work/dumpe2fs")
  ((found <= blocks && found > blocks - 100)) || fail "$image has $found blocks, not $blocks"
}

# fill_to_last_group IMAGE FILE: FILE becomes /last in the image, and its blocks lie in the last group: all before
# is taken by /filler.
fill_to_last_group() {
  local image=$1 file=$2 free spare blocks_per_group groups bytes
  dumpe2fs -h "$image" >"$work/dumpe2fs" 2>/dev/null
  bytes=$(awk '/^Block size:/ {print $3}' "$work/dumpe2fs")
  free=$(awk '/^Free blocks:/ {print $3}' "$work/dumpe2fs")
  blocks_per_group=$(awk '/^Blocks per group:/ {print $4}' "$work/dumpe2fs")
  groups=$((($(awk '/^Block count:/ {print $3}' "$work/dumpe2fs") + blocks_per_group - 2) / blocks_per_group))
  # Some more than the file, and what maps the filler: without extents a block for 256 or more.
  spare=$((4 * $(stat -c %s "$file") / bytes + free / 250))
  : >"$work/empty"
  debugfs -w -f - "$image" >"$work/debugfs" 2>&1 <<END
write $work/empty filler
fallocate filler 0 $((free - spare))
write $file last
END
  debugfs -R 'blocks /last' "$image" 2>/dev/null | tr ' ' '\n' | grep . | sort -n | tail -n 1 >"$work/block"
  equal "$(($(cat "$work/block") / blocks_per_group))" $((groups - 1)) "the group of the last block of /last"
  ((groups > 64)) || fail "there are only $groups groups"
}
