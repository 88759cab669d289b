#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Defaults as mke2fs has them, by mke2fs: features, inodes, journal and reserved descriptors. With these resize2fs makes
# an image ten times as large, and does not make it meta_bg, which U-Boot cannot read (tests/vm/growth_test.sh). GRUB's own reader
# finds the files before and after, but for volumes with ea_inode.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"
source "$here/growth.sh"

small_tree "$work/tree"
noise 65536 >"$work/last"

# seen_by_grub IMAGE PATH FILE
seen_by_grub() {
  grub-fstest "$1" cat "$2" >"$work/seen" 2>"$work/grub" || fail "GRUB: $(cat "$work/grub")"
  same "$work/seen" "$3"
}

# What a volume with ea_inode says of GRUB is so.
python3 - "$work/attributes.tar" <<'END'
import io, sys, tarfile
with tarfile.open(sys.argv[1], "w", format=tarfile.PAX_FORMAT) as archive:
    for name, value in (("small", "s"), ("large", "l" * 60000)):
        member = tarfile.TarInfo(name)
        member.size = 2
        member.pax_headers = {"SCHILY.xattr.user.key": value}
        archive.addfile(member, io.BytesIO(b"x\n"))
END
printf 'x\n' >"$work/x"
"$MKVIRTFS" dump "$work/attributes.tar" --fs=ext4 -o "$work/image" 2>"$work/said"
contains "$(cat "$work/said")" 'ea_inode is on, because the extended attributes of large need more than a block; GRUB cannot read'
e2fsck -fn "$work/image" >"$work/e2fsck" 2>&1 || fail "$(cat "$work/e2fsck")"
equal "$(debugfs -R 'ea_get -V /large user.key' "$work/image" 2>/dev/null | tr -d 'l\n' | wc -c)" 0
! grub-fstest "$work/image" cat /small >"$work/seen" 2>&1 || [[ ! -s $work/seen ]] || fail "GRUB reads it"
rm "$work/image"
"$MKVIRTFS" dump "$work/attributes.tar" --fs=ext4 --exclude=large -o "$work/image"
seen_by_grub "$work/image" /small "$work/x"
rm "$work/image"

# as_mke2fs FS SIZE: the same numbers, but for the inodes, which mkvirtfs has more of where the source needs them.
facts() { dumpe2fs -h "$1" 2>/dev/null | grep -E '^(Inode count|Inodes per group|Reserved GDT blocks|Total journal blocks|Filesystem features):' | tr -s ' '; }
as_mke2fs() {
  local fs=$1 size=$2
  rm -f "$work/image" "$work/by-mke2fs"
  mkdir -p "$work/empty-tree"
  "$MKVIRTFS" dump "$work/empty-tree" --fs="$fs" --size="$size" --block-size=4096 -o "$work/image"
  truncate -s "$size" "$work/by-mke2fs"
  local features=()
  [[ $fs != ext2 ]] || features=(-O ^dir_index)
  mke2fs -q -t "$fs" -b 4096 -I 256 -i 16384 "${features[@]}" "$work/by-mke2fs"
  equal "$(facts "$work/image")" "$(facts "$work/by-mke2fs")" "$fs of $size"
}
for fs in ext2 ext3 ext4; do
  for size in 64M 1G 20G; do as_mke2fs $fs $size; done
done

# grows FS MIB OPTION...
grows() {
  local fs=$1 mib=$2 image=$work/image bytes
  shift 2
  rm -f "$image"
  "$MKVIRTFS" dump "$work/tree" --fs="$fs" --size="${mib}M" -o "$image" "$@"
  seen_by_grub "$image" /bin/3000000 "$work/tree/bin/3000000"
  bytes=$(dumpe2fs -h "$image" 2>/dev/null | awk '/^Block size:/ {print $3}')
  truncate -s $((10 * mib))M "$image"
  resize2fs "$image" >"$work/resize2fs" 2>&1 || fail "resize2fs: $(cat "$work/resize2fs")"
  has_grown "$image" $((10 * mib * 1048576 / bytes))
  debugfs -R 'cat /noise' "$image" 2>/dev/null >"$work/seen"
  same "$work/seen" "$work/tree/noise"
}
grows ext2 64
grows ext3 64
grows ext4 1024
grows ext2 64 --block-size=1024
grows ext4 64 --block-size=1024
fill_to_last_group "$work/image" "$work/last"
seen_by_grub "$work/image" /last "$work/last"
