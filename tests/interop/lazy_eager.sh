#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Law 2: reads of any order and size give the bytes of dump, and block status is true.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
for fs in ext2 ext3 ext4; do
  "$MKVIRTFS" dump "$work/tree" --fs=$fs -o "$work/$fs"
  start_server "$work/tree" --fs=$fs -U "$work/sock"
  python3 "$here/lazy_eager.py" "$uri" "$work/$fs" || fail "$fs"
  stop_server
done
