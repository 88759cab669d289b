#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Several sources are one image: byte for byte that of the directory which cp makes of them.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

image_of() { # FILE SOURCES AND OPTIONS...
  local file=$1
  shift
  "$MKVIRTFS" dump --fs=ext4 --free=8M --force -o "$file" "$@" 2>"$work/stderr" ||
    fail "dump $*: $(cat "$work/stderr")"
}

mkdir -p "$work"/base/{etc/conf.d,usr/lib,var} "$work"/over/{etc/conf.d,home} "$work"/extra/conf.d
head -c 300000 /dev/urandom >"$work/base/usr/lib/large"
ln "$work/base/usr/lib/large" "$work/base/usr/lib/again"
ln -s ../usr "$work/base/var/link"
echo base | tee "$work"/base/etc/{hosts,conf.d/a,conf.d/b} >"$work/base/readme"
echo over | tee "$work"/over/etc/{hosts,conf.d/c} >"$work/over/home/file"
echo extra | tee "$work"/extra/{issue,conf.d/a} >"$work/extra/conf.d/d"
chmod 700 "$work/over/home" "$work/extra/conf.d"
chmod 711 "$work/extra"
truncate -s 3M "$work/over/home/sparse"
echo end >>"$work/over/home/sparse"
touch -d @1500000000 "$work/extra" "$work/over/etc" "$work/over"

cp -a "$work/base" "$work/merged"
cp -a --remove-destination "$work/over/." "$work/merged"
cp -a --remove-destination "$work/extra/." "$work/merged/etc"
image_of "$work/wanted" "$work/merged"
image_of "$work/image" "$work/base" "$work/over" --at=/etc "$work/extra"
cmp "$work/wanted" "$work/image" || fail "layers are not what cp makes of them"
image_of "$work/image" --at / "$work/base" --at=/ "$work/over" --at etc/ "$work/extra"
cmp "$work/wanted" "$work/image" || fail "slashes around a path changed the image"

# Over NBD, under a name of its own, too.
start_server "layers=$work/base,fs=ext4,free=8M" "layers=$work/over" "layers=$work/extra,at=/etc"
nbdcopy "$uri" "$work/copy"
stop_server
cmp "$work/wanted" "$work/copy" || fail "layers of a name are not what cp makes of them"

# Directories on the way are made, and a link on it is not followed.
mkdir -p "$work/deep"
cp -a "$work/extra" "$work/deep/new"
mkdir "$work/deep/way"
mv "$work/deep/new" "$work/deep/way/new"
touch -d @0 "$work/deep/way"
chmod 755 "$work/deep/way"
chown 0:0 "$work/deep/way" 2>/dev/null || true
touch -d @1600000000 "$work/deep"
mkdir "$work/empty"
touch -d @1600000000 "$work/empty"
image_of "$work/wanted" "$work/deep" --owner=0:0
image_of "$work/image" "$work/empty" --at=way/new "$work/extra" --owner=0:0
cmp "$work/wanted" "$work/image" || fail "directories on the way are not as they should be"
fails 2 '/var/link is a symlink' "$MKVIRTFS" dump -o "$work/never" "$work/base" --at=/var/link/x "$work/extra"
fails 2 '/readme is a file' "$MKVIRTFS" dump -o "$work/never" "$work/base" --at=/readme "$work/extra"
fails 2 'none follows' "$MKVIRTFS" dump -o "$work/never" "$work/base" --at=/etc
[[ ! -e $work/never ]] || fail "a refused dump left a file"

"$MKVIRTFS" inspect "$work/base" --at=/etc "$work/extra" >"$work/facts"
contains "$(cat "$work/facts")" "source +$work/base \+ $work/extra at /etc"

# A member below a symlink: of the sources before, as in a chroot; of its own archive, as GNU tar has it.
mkdir -p "$work/links/"{base/usr/lib,top/lib}
ln -s usr/lib "$work/links/base/lib"
echo foo >"$work/links/top/lib/foo"
tar -C "$work/links/top" -cf "$work/top.tar" --no-recursion lib/foo
"$MKVIRTFS" dump "$work/links/base" "$work/top.tar" --fs=ext4 --force -o "$work/image" 2>/dev/null
equal "$(debugfs -R 'cat /usr/lib/foo' "$work/image" 2>/dev/null)" foo "a file below a symlink of the source before"
"$MKVIRTFS" dump "$work/links/base" "$work/top.tar" --layer-symlinks=replace --fs=ext4 --force -o "$work/image" 2>/dev/null
equal "$(debugfs -R 'cat /lib/foo' "$work/image" 2>/dev/null)" foo "a file in a directory that replaced a symlink"
fails 1 'lies below lib, which is a symlink to usr/lib' "$MKVIRTFS" inspect "$work/links/base" "$work/top.tar" --layer-symlinks=error
fails 2 '--layer-symlinks' "$MKVIRTFS" inspect "$work/top.tar" --layer-symlinks=perhaps

tar -C "$work/links/base" -cf "$work/one.tar" --no-recursion usr usr/lib lib
tar -C "$work/links/top" -rf "$work/one.tar" --no-recursion lib/foo
mkdir "$work/extracted"
tar -C "$work/extracted" -xf "$work/one.tar"
[[ -f $work/extracted/usr/lib/foo ]] || fail "GNU tar follows no symlink"
"$MKVIRTFS" dump "$work/one.tar" --fs=ext4 --force -o "$work/image" 2>/dev/null
equal "$(debugfs -R 'cat /usr/lib/foo' "$work/image" 2>/dev/null)" foo "a file below a symlink of its archive"
ln -sfn /usr/lib "$work/links/base/lib"
tar -C "$work/links/base" -cf "$work/one.tar" --no-recursion usr usr/lib lib
tar -C "$work/links/top" -rf "$work/one.tar" --no-recursion lib/foo
mkdir "$work/refused"
! tar -C "$work/refused" -xf "$work/one.tar" 2>/dev/null || fail "GNU tar follows an absolute symlink"
fails 1 'lies below lib, which is a symlink$' "$MKVIRTFS" inspect "$work/one.tar"
