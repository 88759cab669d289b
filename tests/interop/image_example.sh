#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# image_example.sh DIR: the image example that install.sh has built makes what mkvirtfs makes, and e2fsck accepts it.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

built=$1
small_tree "$work/tree"
tar -C "$work/tree" -czf "$work/tree.tgz" .
for source in "$work/tree" "$work/tree.tgz"; do
  "$MKVIRTFS" dump "$source" --fs=ext4 --label=example --free=16M --force -o "$work/expected" >"$work/out"
  for program in "$built/image/directory_disk" "$built/directory_disk"; do
    rm -f "$work/image"
    "$program" "$source" dump "$work/image"
    same "$work/image" "$work/expected"
  done
  e2fsck -fn "$work/image" >"$work/out" 2>&1 || fail "e2fsck: $(cat "$work/out")"
  start directory_disk "$built/image/directory_disk" "$source" serve "$work/socket"
  nbdcopy "nbd+unix:///?socket=$work/socket" - | cmp - "$work/expected" || fail "nbdcopy from directory_disk"
  kill -TERM "$server_pid"
  wait "$server_pid" || true
  rm -f "$work/socket"
done

# Errors are one line, which names no option.
fails 1 'no-such' "$built/image/directory_disk" "$work/no-such" dump "$work/image"
fails 1 'image' "$built/image/directory_disk" "$work/tree" dump "$work/image"
