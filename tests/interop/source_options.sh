#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What is taken from the source, and as whose: rules, owners, modes, unreadable entries, mounts.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

image_of() {
  "$MKVIRTFS" dump "$work/tree" --fs=ext4 --force -o "$work/image" "$@" 2>"$work/stderr" ||
    fail "dump $*: $(cat "$work/stderr")"
}
has() { debugfs -R "stat $1" "$work/image" 2>/dev/null | grep -q '^Inode:'; }
stat_of() { debugfs -R "stat $1" "$work/image" 2>/dev/null; }

mkdir -p "$work/tree/src/deep" "$work/tree/build/obj"
touch "$work/tree/src/"{main.c,main.o} "$work/tree/src/deep/"{a.c,a.o} "$work/tree/build/obj/x"
chmod 6755 "$work/tree/src/main.c"

image_of --exclude '*.o' --exclude build
has src/main.c && has src/deep/a.c && ! has src/main.o && ! has src/deep/a.o && ! has build ||
  fail "--exclude of names"
image_of --include 'deep/a.o' --include 'src/deep/a.o' --exclude '*.o'
has src/deep/a.o && ! has src/main.o || fail "--include before --exclude"
image_of --exclude 'src/**'
has src && has build/obj/x && ! has src/main.c && ! has src/deep || fail "--exclude of a path"

image_of --owner 123:456 --mode-mask 0755
contains "$(stat_of src/main.c)" 'User: +123 +Group: +456'
contains "$(stat_of src/main.c)" 'Mode: +0755'
own=$(id -u)
image_of --map-uid "$own:5000" --map-gid "$(id -g):6000"
contains "$(stat_of src/main.c)" 'User: +5000 +Group: +6000'

# The source is never written: not even its access times.
echo data >"$work/tree/src/deep/a.c"
find "$work/tree" -print0 >"$work/names"
state() { xargs -0 stat --format='%n %i %y %z %x %f %u %g' <"$work/names"; }
xargs -0 touch -a -d '2001-01-01' <"$work/names"
state >"$work/before"
image_of
state >"$work/after"
diff "$work/before" "$work/after" || fail "the source was changed"

# A link that leads out is a link, and no more.
ln -s /etc "$work/tree/etc"
ln -s ../../../../etc/passwd "$work/tree/src/passwd"
image_of
contains "$(stat_of etc)" 'Type: symlink'
contains "$(stat_of src/passwd)" 'Type: symlink'

# Unreadable entries: an error that names them all, or a count. Root reads everything, so not as root.
mkdir "$work/tree/closed"
touch "$work/tree/src/secret"
chmod 000 "$work/tree/closed" "$work/tree/src/secret"
chmod 755 "$work"
as_nobody=()
((EUID != 0)) || as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fails 1 'closed.*src/secret|src/secret.*closed' \
  "${as_nobody[@]}" "$MKVIRTFS" dump "$work/tree" -o "$work/never"
contains "$(cat "$work/stderr")" '--skip-unreadable'
[[ ! -e $work/never ]] || fail "a refused dump left a file"
"${as_nobody[@]}" "$MKVIRTFS" dump "$work/tree" --fs=ext4 --skip-unreadable -o - \
  >"$work/image" 2>"$work/stderr" || fail "--skip-unreadable: $(cat "$work/stderr")"
contains "$(cat "$work/stderr")" '\b2\b'
has src/main.c && ! has src/secret || fail "--skip-unreadable takes what it can read"

# Another file system below the source is not entered, unless asked.
chmod 755 "$work/tree/closed" "$work/tree/src/secret"
mkdir "$work/tree/mounted"
with_mount='
  mount -t tmpfs none "$1/mounted" && echo inside >"$1/mounted/file" || exit 99
  shift; exec "$@"'
in_mount() {
  "${with_own_mounts[@]}" bash -c "$with_mount" - "$work/tree" \
    "$MKVIRTFS" dump "$work/tree" --fs=ext4 -o - "$@" >"$work/image" 2>"$work/stderr" ||
    fail "with a mount: $(cat "$work/stderr")"
}
if may_mount; then
  in_mount
  has mounted && ! has mounted/file || fail "a mount was entered"
  in_mount --no-one-file-system
  has mounted/file || fail "a mount was not entered with --no-one-file-system"
fi
