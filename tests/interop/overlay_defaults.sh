#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# An overlay that 0.1.0 made opens with the defaults of that version. data/overlay-0.1.0.xz was kept by 0.1.0 over
# the tree below, served with the options below, and has 64 KiB of 0x11 at 1 MiB.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

tree=$work/tree
overlay=$work/disk.overlay
mkdir -p "$tree/etc"
printf 'box\n' >"$tree/etc/hostname"
printf 'hello\n' >"$tree/README"
ln -s etc/hostname "$tree/name"
chmod 755 "$tree" "$tree/etc"
chmod 644 "$tree/README" "$tree/etc/hostname"
find "$tree" -exec touch -h -d '2024-02-03T04:05:06Z' {} +
xz -dc "$here/data/overlay-0.1.0.xz" >"$overlay"
options=("$tree" --fs=ext4 --free=1M --owner=0:0)

# The image itself.
equal "$("$MKVIRTFS" dump "${options[@]}" --defaults=0.1 -o - | sha256sum)" \
  "5abbac5f05ba1355b65651a50aaf88cd2c022d1613751ec1249ea39aa7b2d730  -" "the image of 0.1.0"

start_server "${options[@]}" --defaults=0.1 --overlay="$overlay" -U "$work/sock"
qemu-io -r -f raw "$uri" -c 'read -P 0x11 1M 64k' -c 'read -P 0 1536k 64k' >"$work/log"
if grep -qi 'fail' "$work/log"; then fail "$(cat "$work/log")"; fi
equal "$(nbdinfo --json "$uri" | grep -c '"is_read_only": false')" 1 "writable"
stop_server

# Today's image is another one, and the message says how to get the old one.
fails 2 'another image.*--defaults=0.1' "$MKVIRTFS" serve "${options[@]}" --overlay="$overlay" -U "$work/sock"

# As a key of one export, too.
start_server "disk=$tree,fs=ext4,free=1M,owner=0:0,defaults=0.1" --overlay="$overlay" -U "$work/sock"
qemu-io -r -f raw "nbd+unix:///disk?socket=$work/sock" -c 'read -P 0x11 1M 64k' >"$work/log"
if grep -qi 'fail' "$work/log"; then fail "$(cat "$work/log")"; fi
stop_server

fails 2 'defaults: 0.2 is none of 0.1' "$MKVIRTFS" dump "${options[@]}" --defaults=0.2 -o "$work/image"
