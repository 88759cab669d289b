#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# new_golden.sh GOLDEN-TEST: scripts/new-golden makes a recipe of a directory that gives the image which the program
# makes of the directory itself.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

golden_test=$1
images=$work/images
mkdir -p "$images" "$work/tree/bin" "$work/tree/"$'odd "name" \xff'
printf 'quoted "text"\n\x00\\' >"$work/tree/bin/bytes"
ln "$work/tree/bin/bytes" "$work/tree/again"
ln -s 'bin/by tes' "$work/tree/link"
mkfifo -m 600 "$work/tree/fifo"
truncate -s 1M "$work/tree/hole"
setfattr -n user.note -v 'some value' "$work/tree/bin/bytes"
setfacl -m u:1234:r-- "$work/tree/bin/bytes"
if is_root; then mknod "$work/tree/disk" b 259 70000; else skipped "device nodes"; fi
chmod 4711 "$work/tree/bin/bytes"
find "$work/tree" -depth -exec touch -h -d '1969-12-31 23:59:58.25' {} +

new_golden() { "$here/../../scripts/new-golden" --images "$images" --golden-test "$golden_test" "$@"; }
for options in "fs=ext4 free=1M" "fs=ext2 block-size=1K size=8M label=x"; do
  read -ra words <<<"$options"
  name=of-${words[0]#fs=}
  new_golden "$name" "$work/tree" "${words[@]}" >"$work/out" 2>&1 || fail "$options: $(cat "$work/out")"
  "$MKVIRTFS" dump "$work/tree" "${words[@]/#/--}" -o "$work/image" --force --sha256 >"$work/sum" 2>"$work/stderr" ||
    fail "dump $options: $(cat "$work/stderr")"
  equal "$(cat "$images/$name/sha256")" "$(grep -oE '[0-9a-f]{64}' "$work/sum")" "digest of $options"
done

# A recipe with a command goes the whole way, and a disk comes out.
new_golden --piece=mbr.bin of-command "$work/tree" -- . --fs=ext4 --table=mbr >"$work/out" 2>&1 || fail "a disk: $(cat "$work/out")"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 --table=mbr -o "$work/image" --force --sha256 >"$work/sum"
equal "$(cat "$images/of-command/sha256")" "$(grep -oE '[0-9a-f]{64}' "$work/sum")" "digest of a disk"
equal "$(cat "$images/of-command/pieces")" "mbr.bin $(sha256sum </usr/lib/syslinux/mbr/mbr.bin | cut -c1-64)" "its piece"

# What is made passes, and notices a change.
MKVIRTFS_IMAGES_DIR=$images "$golden_test" >"$work/out" 2>&1 || fail "the new recipes: $(cat "$work/out")"
sed -i 's/size=1048576/size=1048577/' "$images/of-ext4/tree"
! MKVIRTFS_IMAGES_DIR=$images "$golden_test" >"$work/out" 2>&1 || fail "a changed recipe passes"

sed -i 's/size=1048577/size=1048576/' "$images/of-ext4/tree"
echo "mbr.bin of another version" >"$images/of-command/pieces"
! MKVIRTFS_IMAGES_DIR=$images "$golden_test" >"$work/out" 2>&1 || fail "another version of a loader passes"
contains "$(cat "$work/out")" 'expected mbr.bin of another version'

# Content beyond 256 bytes becomes a pattern of the same size; what is refused keeps its message, or nothing.
head -c 300 /dev/zero >"$work/tree/larger"
new_golden should-fail-too-small "$work/tree" fs=ext4 size=16K >/dev/null 2>&1 || fail "a refused plan"
contains "$(cat "$images/should-fail-too-small/tree")" '^file larger .* size=300$'
[[ -s $images/should-fail-too-small/expect ]] || fail "the message is missing"
! new_golden refused "$work/tree" fs=ext4 size=16K >/dev/null 2>&1 || fail "a recipe without an image"
[[ ! -e $images/refused ]] || fail "a recipe without an image stays"
! new_golden of-ext4 "$work/tree" fs=ext4 >/dev/null 2>&1 || fail "it writes over a recipe"
