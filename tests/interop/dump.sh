#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# dump: the same bytes to a file and a pipe, sparse, never over something, nothing left of a failure.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 -o "$work/image" >"$work/out" 2>"$work/err"
[[ ! -s $work/err ]] || fail "a progress bar without a terminal: $(head -c 300 "$work/err")"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 -o - | cmp - "$work/image" || fail "-o - gives other bytes"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 -o - >"$work/redirected"
same "$work/redirected" "$work/image"
(($(stat -c %b "$work/image") * 512 < $(stat -c %s "$work/image") / 3)) || fail "not sparse"

# --sha256 is the sum of what was written.
sum=$(sha256sum "$work/image" | cut -d ' ' -f 1)
contains "$("$MKVIRTFS" dump "$work/tree" --fs=ext4 --sha256 -o "$work/summed" 2>&1)" "$sum"
same "$work/summed" "$work/image"

# Something that exists stays as it is, until --force.
echo precious >"$work/there"
fails 1 "there.*--force" "$MKVIRTFS" dump "$work/tree" -o "$work/there"
equal "$(cat "$work/there")" precious
"$MKVIRTFS" dump "$work/tree" --fs=ext4 -o "$work/there" --force
same "$work/there" "$work/image"
mkdir "$work/directory"
fails 1 'directory' "$MKVIRTFS" dump "$work/tree" -o "$work/directory"
fails 1 'directory' "$MKVIRTFS" dump "$work/tree" -o "$work/directory" --force
fails 1 'No such file or directory' "$MKVIRTFS" dump "$work/tree" -o "$work/no/such/image"
fails 1 'No space left' "$MKVIRTFS" dump "$work/tree" -o /dev/full --force

# A preallocated file takes no room in the image, and what was written to it is there.
mkdir "$work/preallocated"
if fallocate -l 100M "$work/preallocated/f" 2>/dev/null; then
  printf data | dd of="$work/preallocated/f" bs=1 seek=50M conv=notrunc status=none
  "$MKVIRTFS" dump "$work/preallocated" --fs=ext4 -o "$work/preallocated.img"
  (($(stat -c %b "$work/preallocated.img") * 512 < 20000000)) || fail "a preallocated file is stored"
  e2fsck -fn "$work/preallocated.img" >"$work/log" 2>&1 || fail "e2fsck: $(cat "$work/log")"
  debugfs -R "dump /f $work/copied" "$work/preallocated.img" 2>"$work/log"
  same "$work/copied" "$work/preallocated/f"
else
  echo "skipped: no fallocate(2) in $work"
fi

# Formats of virtual machines, by qemu-img: the same bytes, whole or not at all, in a directory whose
# name looks like a protocol. qcow2 is the same each time.
mkdir "$work/nbd:x"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 --free=50M -o "$work/raw.img"
for format in qcow2 vmdk vhdx; do
  converted=$work/nbd:x/disk.$format
  contains "$("$MKVIRTFS" dump "$work/tree" --fs=ext4 --free=50M --format=$format -o "$converted")" " bytes as $format, .* stored"
  contains "$(qemu-img compare -f raw -F $format "$work/raw.img" "$converted")" identical
  (($(stat -c %b "$converted") * 512 < 8 << 20)) || fail "free space is stored in $format"
done
qemu-img check -q "$work/nbd:x/disk.qcow2" || fail "qemu-img check"
fails 1 'exists already.*--force' "$MKVIRTFS" dump "$work/tree" --fs=ext4 --free=50M --format=qcow2 -o "$work/nbd:x/disk.qcow2"
(cd "$work/nbd:x" && "$MKVIRTFS" dump ../tree --fs=ext4 --free=50M --format=qcow2 -o again --json) >"$work/out"
equal "$(python3 -c 'import json, sys; print(json.load(sys.stdin)["format"])' <"$work/out")" qcow2
same "$work/nbd:x/again" "$work/nbd:x/disk.qcow2"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 --format=qcow2 -o "$work/nbd:x/again" --force >"$work/out"
contains "$(qemu-img info "$work/nbd:x/again")" 'file format: qcow2'
fails 2 'output=- is for raw images' "$MKVIRTFS" dump "$work/tree" --format=vmdk -o -
fails 2 'sha256 is for raw images' "$MKVIRTFS" dump "$work/tree" --format=vmdk --sha256 -o "$work/x"
fails 1 'not a regular file' "$MKVIRTFS" dump "$work/tree" --format=vmdk -o /dev/null --force
fails 1 'qemu-img writes qcow2 files, and is not installed .package qemu-utils' \
  env PATH=/nonexistent "$MKVIRTFS" dump "$work/tree" --format=qcow2 -o "$work/x"
fails 1 'No such file' "$MKVIRTFS" dump "$work/tree" --format=qcow2 -o "$work/no/such/place"
equal "$(ls -A "$work/nbd:x")" "$(printf '%s\n' again disk.qcow2 disk.vhdx disk.vmdk)" "left beside the outputs"

# The file that is written is no part of the image, wherever it lies.
for ((run = 0; run < 2; run++)); do
  (cd "$work/directory" && "$MKVIRTFS" dump . --fs=ext4 -o disk.img --force) >"$work/out" 2>"$work/err"
  contains "$(cat "$work/err")" 'disk.img lies in the source . and is left out of the image'
  contains "$(debugfs -R 'stat /disk.img' "$work/directory/disk.img" 2>&1)" 'File not found'
done

# A full disk: a message, exit 1, and the partial file is gone.
full_disk='
  mount -t tmpfs -o size=4m none "$1" || exit 99
  "$2" dump "$3" --fs=ext4 -o "$1/image"
  status=$?
  ls -A "$1"
  exit $status'
if may_mount; then
  mkdir "$work/small-disk"
  status=0
  left=$("${with_own_mounts[@]}" bash -c "$full_disk" - \
    "$work/small-disk" "$MKVIRTFS" "$work/tree" 2>"$work/stderr") || status=$?
  equal "$status" 1 "exit status on a full disk"
  equal "$left" "" "left on the full disk"
  contains "$(cat "$work/stderr")" 'No space left'
  equal "$(wc -l <"$work/stderr")" 1 "lines about the full disk"
fi

# Interrupted: nothing half-made stays. The pipe makes it wait long enough to be caught.
truncate -s 20G "$work/tree/large"
head -c 300M /dev/urandom >"$work/tree/data"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 -o "$work/interrupted" >"$work/said" 2>&1 &
dump_pid=$!
until [[ -e $work/interrupted ]] || ! kill -0 $dump_pid 2>/dev/null; do sleep 0.005; done
if kill -TERM $dump_pid 2>/dev/null; then
  status=0
  wait $dump_pid || status=$?
  ((status != 0)) || [[ -e $work/interrupted ]] || fail "ended well without a file"
  # The signal may also come after the last byte: then the file is whole, and its line was printed.
  ((status == 0)) || [[ ! -e $work/interrupted ]] || grep -q ' of data, in ' "$work/said" ||
    fail "an interrupted dump left its file"
fi

# A reader that leaves early.
set +o pipefail
"$MKVIRTFS" dump "$work/tree" -o - 2>"$work/stderr" | head -c 100000 | wc -c >/dev/null
set -o pipefail
(($(wc -l <"$work/stderr") <= 1)) || fail "more than one line: $(cat "$work/stderr")"
