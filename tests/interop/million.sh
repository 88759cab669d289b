#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# million.sh: 1,000,000 files and a directory of 200,000 more: e2fsck agrees with every variant, and
# the server stays small. The tree is made in MKVIRTFS_BENCH_DIR when it is set, and kept there.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

data=${MKVIRTFS_BENCH_DIR:-$work}
if [[ ! -d $data/million ]]; then
  python3 - "$data/million.half" <<'END'
import os, sys
os.makedirs(sys.argv[1] + "/flat")
os.chdir(sys.argv[1])
for number in range(1_000_000):
    if number % 1000 == 0:
        os.mkdir(f"dir-{number // 1000:04d}")
    with open(f"dir-{number // 1000:04d}/file-{number % 1000:04d}", "w") as file:
        file.write("data\n" if number % 2 else "")
for number in range(200_000):
    with open(f"flat/file-{number:06d}.txt", "w") as file:
        file.write(f"file {number:06d}\n")
END
  mv "$data/million.half" "$data/million"
fi
tree=$data/million
names=$(find "$tree" -printf x | wc -c)

for fs in ext4 ext3 ext2; do
  start_server "$tree" --fs=$fs -U "$work/sock"
  peak=$(awk '/VmHWM/ {print $2 * 1024}' "/proc/$server_pid/status")
  echo "$fs: $names names, peak memory $((peak / 1000000)) MB"
  ((peak <= 170000000 * names / 1000000)) || fail "$peak bytes of memory"
  nbdcopy "$uri" "$work/image"
  stop_server
  e2fsck -fn "$work/image" >"$work/fsck" 2>&1 || { head "$work/fsck" >&2; fail "e2fsck of $fs"; }
  contains "$(cat "$work/fsck")" ": $((names + 10))/|: $((names + 11))/"
  rm "$work/image"
done
