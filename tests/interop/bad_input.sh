#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Bad input is normal input: one line, exit 2 for wrong usage and 1 for failure, nothing left behind.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

mkdir "$work/tree" "$work/cwd"
echo content >"$work/tree/file"
cd "$work/cwd"
tree=$work/tree

for command in serve dump inspect; do
  output=()
  [[ $command != dump ]] || output=(-o image)
  fails 1 'does not exist' "$MKVIRTFS" $command "$work/missing" "${output[@]}"
  fails 1 'not a directory or a supported archive' "$MKVIRTFS" $command "$tree/file" "${output[@]}"
  fails 2 'SOURCE' "$MKVIRTFS" $command "${output[@]}"
  fails 2 'ext9' "$MKVIRTFS" $command "$tree" --fs=ext9 "${output[@]}"
  fails 2 'nonsense' "$MKVIRTFS" $command "$tree" --nonsense "${output[@]}"
  fails 2 'block-size|block size' "$MKVIRTFS" $command "$tree" --block-size=1000 "${output[@]}"
  fails 2 'journal' "$MKVIRTFS" $command "$tree" --journal --no-journal "${output[@]}"
  fails 2 'journal' "$MKVIRTFS" $command "$tree" --fs=ext3 --no-journal "${output[@]}"
  fails 2 'free' "$MKVIRTFS" $command "$tree" --free=lots "${output[@]}"
  fails 2 'size' "$MKVIRTFS" $command "$tree" --size=-5 "${output[@]}"
  fails 2 'uuid|UUID' "$MKVIRTFS" $command "$tree" --uuid=1234 "${output[@]}"
  fails 2 'label' "$MKVIRTFS" $command "$tree" --label=longer-than-sixteen-bytes "${output[@]}"
  fails 2 'inode' "$MKVIRTFS" $command "$tree" --inode-size=100 "${output[@]}"
  fails 2 'feature|casefold' "$MKVIRTFS" $command "$tree" --features=casefold "${output[@]}"
  # Too small: the message says the smallest size that fits, and that one does fit.
  fails 1 '[0-9]' "$MKVIRTFS" $command "$tree" --size=4K "${output[@]}"
done
head -c 30M /dev/urandom >"$tree/large"
fails 1 'smallest|at least|needs' "$MKVIRTFS" dump "$tree" --fs=ext4 --size=20M -o image
smallest=$(grep -oE '[0-9]{7,}' "$work/stderr" | sort -n | tail -n 1)
"$MKVIRTFS" dump "$tree" --fs=ext4 --size="$smallest" -o image
e2fsck -fn image >/dev/null 2>&1 || fail "the smallest size that was named does not work: $smallest"
equal "$(stat -c %s image)" "$smallest" "--size"
rm image "$tree/large"

fails 2 'frobnicate' "$MKVIRTFS" frobnicate
fails 2 'output|-o' "$MKVIRTFS" dump "$tree"
status=0
"$MKVIRTFS" >"$work/stdout" 2>"$work/stderr" || status=$?
equal "$status" 2 "exit status without arguments"
contains "$(cat "$work/stderr")" 'serve'
for arguments in --help 'serve --help' 'dump --help' 'inspect --help' --version; do
  # shellcheck disable=SC2086  # words
  "$MKVIRTFS" $arguments >"$work/stdout" 2>"$work/stderr" || fail "$arguments fails"
  [[ -s $work/stdout && ! -s $work/stderr ]] || fail "$arguments does not print to stdout alone"
done

long=$(printf 'd%.0s' {1..120})
fails 2 '10[0-9]' "$MKVIRTFS" serve "$tree" -U "$work/$long"
fails 1 'No such file' "$MKVIRTFS" serve "$tree" -U "$work/no/such/directory/sock"
echo precious >"$work/file"
fails 1 'exists|in use|not a socket' "$MKVIRTFS" serve "$tree" -U "$work/file"
equal "$(cat "$work/file")" precious
start_server "$tree" -U "$work/sock"
fails 1 'in use' "$MKVIRTFS" serve "$tree" -U "$work/sock"
nbdinfo --size "$uri" >/dev/null || fail "the first server lost its socket"
stop_server
start_server "$tree" -p 0
port=$(grep -oE '[0-9]+' <<<"${uri##*:}" | head -n 1)
fails 1 "in use" "$MKVIRTFS" serve "$tree" -p "$port"
stop_server
fails 2 'port' "$MKVIRTFS" serve "$tree" -p 70000
fails 2 'port' "$MKVIRTFS" serve "$tree" -p http

# What a name has that no terminal should see is escaped once, no matter what reports it: here the scanner, a planner, the
# command line, and the log.
odd=$'odd\nname\\'
shown='odd\x0aname\x5c'
said() { "$MKVIRTFS" "$@" >"$work/stdout" 2>"$work/stderr" || true; cat "$work/stderr"; }
equal "$(said dump "$work/$odd" -o "$work/x")" "mkvirtfs: $work/$shown does not exist" "no such source"
mkdir -p "$work/$odd" "$work/strange/$odd"
ln -s "$(printf 'x%.0s' {1..1100})" "$work/strange/$odd/link"
contains "$(said dump "$work/strange" --fs=ext2 --block-size=1024 -o "$work/x")" "^mkvirtfs: odd\\\\x0aname\\\\x5c/link is a symlink"
contains "$(said dump "$tree" --fs=ext4 --features="$odd" -o "$work/x")" "^mkvirtfs: --features=odd\\\\x0aname\\\\x5c: not a feature"
contains "$(said dump "$work/$odd" --fs=ext4 -o "$work/$odd/disk")" "^mkvirtfs: warning: .*/odd\\\\x0aname\\\\x5c/disk lies in the source"

equal "$(ls -A "$work/cwd")" "" "left behind"
