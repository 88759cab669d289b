#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What makes an image boot, without booting it (that is vm/boot_test.sh): the files that are added, the
# configuration that is made, its ids, and what is refused.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

mkdir -p "$work/stick/boot" "$work/rootfs/boot" "$work/rootfs/etc" "$work/rootfs/sbin" "$work/empty"
for version in 6.1.0-9-amd64 6.1.0-10-amd64 0-rescue-1234; do
  echo "kernel $version" >"$work/stick/boot/vmlinuz-$version"
  echo "initrd $version" >"$work/stick/boot/initrd.img-$version"
done
cp "$work/stick/boot/"*-10-amd64 "$work/rootfs/boot"
echo init >"$work/rootfs/sbin/init"
find "$work/stick" "$work/rootfs" -exec touch -h -d '2024-02-03 04:05:06 UTC' {} +

dump() { "$MKVIRTFS" dump -o "$work/disk.img" --force "$@" >"$work/out" 2>"$work/err"; }
# file_in IMAGE OFFSET PATH: prints a file of a FAT volume.
file_in() { mtype -i "$1@@$2" "::$3" | tr -d '\r'; }

# A stick: code of the MBR, an active partition, and a configuration for the newest kernel that names this
# partition by the id that the disk then has.
for fs in fat12 fat16 fat32; do
  dump "$work/stick" --fs=$fs --table=mbr --boot=syslinux --append=quiet --boot-timeout=3
  [[ ! -s $work/err ]] || fail "dump said: $(cat "$work/err")"
  id=$(sfdisk --disk-id "$work/disk.img")
  equal "$(file_in "$work/disk.img" 1M syslinux.cfg)" "SERIAL 0 115200
PROMPT 1
TIMEOUT 30
DEFAULT linux
LABEL linux
  LINUX /boot/vmlinuz-6.1.0-10-amd64
  INITRD /boot/initrd.img-6.1.0-10-amd64
  APPEND root=PARTUUID=${id#0x}-01 quiet console=tty0 console=ttyS0,115200"
  head -c 440 "$work/disk.img" >"$work/code"
  same "$work/code" /usr/lib/syslinux/mbr/mbr.bin
  contains "$(sfdisk --json "$work/disk.img")" '"bootable": true'
  contains "$(sfdisk --verify "$work/disk.img" 2>&1)" '^No errors detected'
  dd if="$work/disk.img" of="$work/part" bs=1M skip=1 conv=sparse status=none
  fsck.fat -n "$work/part" >"$work/check" || fail "fsck.fat: $(cat "$work/check")"
  file_in "$work/disk.img" 1M ldlinux.c32 >/dev/null
  mcopy -n -i "$work/disk.img@@1M" ::ldlinux.c32 "$work/ldlinux.c32"
  same "$work/ldlinux.c32" /usr/lib/syslinux/modules/bios/ldlinux.c32
  rm "$work/ldlinux.c32"
  sha256sum <"$work/disk.img" >"$work/first"
  start_server "$work/stick" --fs=$fs --table=mbr --boot=syslinux --append=quiet --boot-timeout=3 \
    -U "$work/sock"
  equal "$(nbdcopy "$uri" - | sha256sum)" "$(cat "$work/first")" "what is served"
  stop_server
done
contains "$("$MKVIRTFS" inspect "$work/stick" --fs=fat32 --table=mbr --boot=syslinux --map)" \
  'boot code \(mbr.bin\)'
contains "$("$MKVIRTFS" inspect "$work/stick" --fs=fat32 --table=mbr --boot=syslinux --map)" \
  "partition 1 .*: patch: SYSLINUX's boot code"

# A GPT: its code boots what is legacy BIOS bootable. The kernel is in another partition, so the one that
# boots shows it, too; the root is the partition of that type.
dump --partition "$work/empty,fs=fat32,type=esp" --partition "$work/rootfs,fs=ext4,type=root-x86-64" \
  --boot=syslinux
head -c 440 "$work/disk.img" >"$work/code"
same "$work/code" /usr/lib/syslinux/mbr/gptmbr.bin
contains "$(sfdisk --json "$work/disk.img")" 'LegacyBIOSBootable'
id=$(sfdisk --part-uuid "$work/disk.img" 2)
contains "$(file_in "$work/disk.img" 1M syslinux.cfg)" "root=PARTUUID=${id,,}"
contains "$(file_in "$work/disk.img" 1M syslinux.cfg)" '^  LINUX /boot/vmlinuz-6.1.0-10-amd64$'
equal "$(file_in "$work/disk.img" 1M boot/vmlinuz-6.1.0-10-amd64)" 'kernel 6.1.0-10-amd64'
contains "$(sgdisk -v "$work/disk.img")" '^No problems found'

# Without a table the root is the file system by its own id, which the configuration in it does not change.
dump "$work/stick" --fs=fat32 --boot=syslinux
id=$(blkid -p -s UUID -o value "$work/disk.img")
contains "$(file_in "$work/disk.img" 0 syslinux.cfg)" "root=UUID=$id "
bare=$("$MKVIRTFS" inspect "$work/stick" --fs=fat32 --json |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["volume_id"])')
equal "$id" "$bare" "the volume's id"
rm "$work/stick/boot/"initrd*
fails 2 'the root is yours to name \(try --append=root=/dev/vda or --table=mbr\)' \
  "$MKVIRTFS" dump "$work/stick" --fs=fat32 --boot=syslinux -o "$work/no.img"
dump "$work/stick" --fs=fat32 --boot=syslinux --append='root=/dev/vda console=ttyS1'
contains "$(file_in "$work/disk.img" 0 syslinux.cfg)" 'APPEND root=/dev/vda console=ttyS1$'

# A configuration in the source counts, whatever its case; the options that say otherwise are reported.
mkdir "$work/stick/Boot-config" && mkdir -p "$work/stick/boot/SYSLINUX"
printf 'DEFAULT mine\n' >"$work/stick/boot/SYSLINUX/syslinux.CFG"
dump "$work/stick" --fs=fat32 --boot=syslinux
[[ ! -s $work/err ]] || fail "dump said: $(cat "$work/err")"
! mtype -i "$work/disk.img" ::syslinux.cfg 2>/dev/null || fail "two configurations"
dump "$work/stick" --fs=fat32 --boot=syslinux --append=quiet
contains "$(cat "$work/err")" 'has a configuration, boot/SYSLINUX/syslinux.CFG: .*--boot-config=ours'
dump "$work/stick" --fs=fat32 --boot=syslinux --append='root=/dev/vda' --boot-config=ours
contains "$(file_in "$work/disk.img" 0 boot/syslinux/syslinux.cfg)" 'root=/dev/vda'

# EXTLINUX, with its code in the MBR, and without a table.
dump "$work/rootfs" --fs=ext4 --table=mbr --boot=extlinux --append=quiet
id=$(sfdisk --disk-id "$work/disk.img")
head -c 440 "$work/disk.img" >"$work/code"
same "$work/code" /usr/lib/syslinux/mbr/mbr.bin
dd if="$work/disk.img" of="$work/part" bs=1M skip=1 conv=sparse status=none
e2fsck -fn "$work/part" >"$work/check" 2>&1 || fail "e2fsck: $(cat "$work/check")"
contains "$(debugfs -R 'cat boot/extlinux/extlinux.conf' "$work/part" 2>/dev/null)" \
  "APPEND root=PARTUUID=${id#0x}-01 quiet console=tty0"
debugfs -R "dump boot/extlinux/ldlinux.c32 $work/ldlinux.c32" "$work/part" 2>/dev/null
same "$work/ldlinux.c32" /usr/lib/syslinux/modules/bios/ldlinux.c32
rm "$work/ldlinux.c32"
# What boots is the sector at which the partition begins.
equal "$(od -An -tu4 -j28 -N4 "$work/part" | tr -d ' ')" 2048 "the volume's first sector"
dump "$work/rootfs" --fs=ext2 --boot=extlinux --append=root=/dev/vda
equal "$(od -An -tu4 -j28 -N4 "$work/disk.img" | tr -d ' ')" 0 "the volume's first sector"
mkdir -p "$work/rootfs/boot/extlinux"
printf 'DEFAULT mine\n' >"$work/rootfs/boot/extlinux/extlinux.conf"
dump "$work/rootfs" --fs=ext4 --boot=extlinux
equal "$(debugfs -R 'cat boot/extlinux/extlinux.conf' "$work/disk.img" 2>/dev/null)" 'DEFAULT mine'
rm -r "$work/rootfs/boot/extlinux"

# ISOLINUX: a CD that is a disk, too; isohybrid finds nothing to do but its id.
dump "$work/rootfs" --fs=iso --boot=isolinux --append=root=/dev/sr0
report=$(xorriso -abort_on SORRY -indev "stdio:$work/disk.img" -check_media -- -report_el_torito plain \
  -report_system_area plain 2>/dev/null) || fail "xorriso: $report"
contains "$report" 'El Torito img path :   1  /isolinux/isolinux.bin'
contains "$report" 'El Torito img opts :   1  boot-info-table isohybrid-suitable'
contains "$(sfdisk --json "$work/disk.img")" '"type": "17"'
equal "$(($(stat -c %s "$work/disk.img") % 1048576))" 0 "bytes beyond a cylinder"
contains "$(isoinfo -R -i "$work/disk.img" -x /isolinux/isolinux.cfg)" '^  APPEND root=/dev/sr0 console=tty0'
id=$(sfdisk --disk-id "$work/disk.img")
cp "$work/disk.img" "$work/hybrid.img"
isohybrid --id "$id" "$work/hybrid.img" >"$work/out" 2>&1 || fail "isohybrid: $(cat "$work/out")"
same "$work/hybrid.img" "$work/disk.img"
contains "$("$MKVIRTFS" inspect "$work/rootfs" --fs=iso --boot=isolinux --append=root=/dev/sr0 --map 0)" \
  "isohybrid's code"

# A hybrid without what UEFI starts is the same image; tests/interop/uefi.sh has the other.
cp "$work/disk.img" "$work/same.img"
dump "$work/rootfs" --fs=iso --table=hybrid --boot=isolinux --append=root=/dev/sr0
same "$work/disk.img" "$work/same.img"

# GRUB: its own partition in a GPT, the last one, unless there is one.
export XDG_CACHE_HOME=$work/cache
dump "$work/rootfs" --fs=ext4 --table=gpt --boot=grub --append=quiet
[[ ! -s $work/err ]] || fail "dump said: $(cat "$work/err")"
contains "$(sgdisk -v "$work/disk.img")" '^No problems found'
equal "$(sfdisk --part-type "$work/disk.img" 2)" 21686148-6449-6E6F-744E-656564454649
id=$(sfdisk --part-uuid "$work/disk.img" 1)
dd if="$work/disk.img" of="$work/part" bs=1M skip=1 conv=sparse status=none
contains "$(debugfs -R 'cat boot/grub/grub.cfg' "$work/part" 2>/dev/null)" \
  "^  linux '/boot/vmlinuz-6.1.0-10-amd64' 'root=PARTUUID=${id,,}' 'quiet' 'console=tty0'"
first=$(sfdisk --json "$work/disk.img" | python3 -c 'import json, sys
print(json.load(sys.stdin)["partitiontable"]["partitions"][1]["start"])')
equal "$(od -An -tu8 -j92 -N8 "$work/disk.img" | tr -d ' ')" "$first" "the first sector of core.img"
equal "$(find "$work/cache" -name '*.piece' | wc -l)" 1 "kept pieces"
find "$work/cache" -name '*.piece' -exec cat {} + >"$work/piece"
dump "$work/rootfs" --fs=ext4 --table=gpt --size=64M --boot=grub --append=quiet
equal "$(stat -c %s "$work/disk.img")" $((64 << 20)) "the disk with a BIOS-boot partition"
contains "$(sfdisk --verify "$work/disk.img" 2>&1)" '^No errors detected'
dump "$work/rootfs" --fs=ext4 --table=mbr --boot=grub --append=quiet
# Behind an MBR core.img is as grub-mkimage makes it.
grub-mkimage -O i386-pc -p '(,msdos1)/boot/grub' -o "$work/core.img" biosdisk part_msdos part_gpt ext2 fat iso9660 \
  normal linux search search_fs_uuid search_label configfile test echo serial gzio
cmp -n "$(stat -c %s "$work/core.img")" "$work/core.img" "$work/disk.img" 0 512 || fail "another core.img"
contains "$("$MKVIRTFS" inspect "$work/rootfs" --fs=ext4 --table=mbr --boot=grub --append=quiet --map 512)" \
  "GRUB's core.img"
dump --partition blank,size=1M,type=bios-boot --partition "$work/rootfs,fs=ext4" --boot=grub
equal "$(sfdisk --json "$work/disk.img" | grep -c '"start"')" 2 "partitions"
equal "$(od -An -tu8 -j92 -N8 "$work/disk.img" | tr -d ' ')" 2048 "the first sector of core.img"

# Two loaders, each in its own partition, and each with a configuration. The first one named boots, unless a partition
# is chosen.
pair() {
  dump --partition "$work/rootfs,fs=fat32$1" --partition "$work/rootfs,fs=ext4$2" "${@:3}"
  [[ ! -s $work/err ]] || fail "dump said: $(cat "$work/err")"
  sfdisk --json "$work/disk.img" >"$work/table"
  # The second partition starts where the first one ends.
  first=$(python3 -c 'import json, sys
print(json.load(sys.stdin)["partitiontable"]["partitions"][1]["start"])' <"$work/table")
  dd if="$work/disk.img" of="$work/part" bs=512 skip="$first" conv=sparse status=none
  contains "$(file_in "$work/disk.img" 1M syslinux.cfg)" '^  LINUX /boot/vmlinuz-6.1.0-10-amd64$'
  contains "$(debugfs -R 'cat boot/extlinux/extlinux.conf' "$work/part" 2>/dev/null)" \
    '^  LINUX /boot/vmlinuz-6.1.0-10-amd64$'
  contains "$(debugfs -R 'stat boot/extlinux/ldlinux.sys' "$work/part" 2>/dev/null)" 'Type: regular'
  ! debugfs -R 'stat ldlinux.sys' "$work/part" 2>/dev/null | grep -q 'Type: regular' || fail "two loaders in one"
  e2fsck -fn "$work/part" >"$work/check" 2>&1 || fail "e2fsck: $(cat "$work/check")"
}
# The numbers of the partitions that a BIOS boots.
active() {
  python3 -c 'import json, sys
parts = json.load(sys.stdin)["partitiontable"]["partitions"]
print(*(n for n, part in enumerate(parts, 1) if part.get("bootable") or "LegacyBIOSBootable" in part.get("attrs", "")))
' <"$work/table"
}
pair '' '' --table=mbr --boot=syslinux,extlinux
equal "$(active)" 1 "the active partition"
head -c 440 "$work/disk.img" >"$work/code"
same "$work/code" /usr/lib/syslinux/mbr/mbr.bin
pair '' '' --table=mbr --boot=extlinux --boot=syslinux
equal "$(active)" 2 "the active partition"
pair '' ,bootable --table=gpt --boot=syslinux,extlinux
equal "$(active)" 2 "the bootable partition"
head -c 440 "$work/disk.img" >"$work/code"
same "$work/code" /usr/lib/syslinux/mbr/gptmbr.bin

# A file that names what the disk does not have is reported, with the option that would help.
echo 'UUID=11111111-2222-4333-8444-555555555555 / ext4 defaults 0 1' >"$work/rootfs/etc/fstab"
dump --partition "$work/rootfs,fs=ext4"
contains "$(cat "$work/err")" \
  '/etc/fstab names UUID=11111111-.*, and nothing here has that: partition 1 has .*\(try --partition=SOURCE,uuid=11111111-'
dump "$work/rootfs" --fs=ext4 --table=mbr
contains "$(cat "$work/err")" 'partition 1 has .*\(try --uuid=11111111-'
dump --partition "$work/rootfs,fs=ext4" --partition "$work/part,fs=raw"
contains "$(cat "$work/err")" 'names UUID=11111111-.* has that, unless it is in a ready image, .*\(partition 2\)'
dump --partition "$work/rootfs,fs=ext4,uuid=11111111-2222-4333-8444-555555555555"
[[ ! -s $work/err ]] || fail "dump said: $(cat "$work/err")"

# Pieces: which are there, and what is said of one that is not.
"$MKVIRTFS" inspect --boot-pieces >"$work/pieces"
equal "$(awk '$1 == "mbr.bin" {print $2, $3, $4}' "$work/pieces")" \
  "syslinux-common $(dpkg-query -W -f '${Version}' syslinux-common) /usr/lib/syslinux/mbr/mbr.bin"
mkdir "$work/pieces.d"
cp /usr/bin/syslinux /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/pieces.d"
dump "$work/rootfs" --fs=fat32 --boot=syslinux --append=root=/dev/vda --boot-files="$work/pieces.d"
fails 1 "mbr.bin.*\(try Debian's package syslinux-common or --boot-files\)" "$MKVIRTFS" dump "$work/rootfs" \
  --fs=fat32 --table=mbr --boot=syslinux --boot-files="$work/pieces.d" -o "$work/no.img"
head -c 100000 /dev/zero >"$work/pieces.d/syslinux"
fails 1 'not an installer of SYSLINUX' "$MKVIRTFS" dump "$work/rootfs" --fs=fat32 --boot=syslinux \
  --append=root=/dev/vda --boot-files="$work/pieces.d" -o "$work/no.img"

# Mistakes.
no() { "$MKVIRTFS" dump -o "$work/no.img" "$@"; }
fails 1 '--boot=syslinux: SYSLINUX boots from FAT, not from ext4 \(try --fs=fat\)' \
  no "$work/rootfs" --fs=ext4 --boot=syslinux
fails 1 'SYSLINUX boots from disks with sectors of 512 bytes' \
  no "$work/rootfs" --fs=fat32 --table=gpt --sector-size=4096 --boot=syslinux
fails 1 '--boot=extlinux: EXTLINUX boots from ext2, ext3 and ext4, not from fat16 \(try --fs=ext4\)' \
  no "$work/rootfs" --fs=fat16 --boot=extlinux
fails 1 '--boot=isolinux: ISOLINUX boots from ISO 9660, not from ext4 \(try --fs=iso\)' \
  no "$work/rootfs" --fs=ext4 --boot=isolinux
fails 1 'ISOLINUX boots an image that has a partition table of its own' \
  no "$work/rootfs" --fs=iso --table=mbr --boot=isolinux
fails 1 '--boot=grub: GRUB for BIOS has no place on a disk without a partition table \(try --table=mbr or --table=gpt\)' \
  no "$work/rootfs" --fs=ext4 --boot=grub
fails 1 "GRUB's core.img, bytes 512 to .*, does not fit before partition 1" \
  no --table=mbr --partition "$work/rootfs,fs=ext4,offset=64K" --boot=grub
cp /usr/lib/grub/i386-pc/boot.img "$work/pieces.d"
fails 1 "grub-mkimage.*\(try Debian's package grub-common or --boot-files\)" \
  no "$work/rootfs" --fs=ext4 --table=mbr --boot=grub --boot-files="$work/pieces.d"
fails 1 "GRUB would give the kernel it's with a backslash before each quote and backslash" \
  no "$work/rootfs" --fs=ext4 --table=mbr --boot=grub --append="quiet it's"
fails 2 '--table=hybrid: an ISO image has a partition table of its own .*\(try --boot=isolinux or --table=gpt\)' \
  no "$work/rootfs" --fs=iso --table=hybrid
fails 2 'an ISO image has a GPT when UEFI starts it' no "$work/rootfs" --fs=iso --table=hybrid --boot=isolinux \
  --disk-id=11111111-2222-4333-8444-555555555555
fails 1 'GRUB for BIOS has no place' no "$work/rootfs" --fs=iso --table=hybrid --boot=grub
fails 2 '--boot=lilo: none of syslinux' no "$work/rootfs" --fs=fat --boot=lilo
fails 2 '--boot=syslinux,syslinux: SYSLINUX is there twice$' no "$work/rootfs" --fs=fat --boot=syslinux,syslinux
fails 2 "--boot=isolinux,grub: the first sector has room for the code of one, ISOLINUX's or GRUB's$" \
  no "$work/rootfs" --fs=iso --boot=isolinux,grub
fails 1 '--boot=extlinux: EXTLINUX boots from ext2, ext3 and ext4, not from fat16 \(try --partition\)$' \
  no "$work/rootfs" --fs=fat16 --boot=syslinux,extlinux
fails 1 '--boot=syslinux: SYSLINUX boots from FAT, not from ext4' no --partition "$work/stick,fs=fat16" \
  --partition "$work/rootfs,fs=ext4,bootable" --boot=syslinux
fails 1 '--boot=syslinux: SYSLINUX boots from FAT, not from iso' no --partition "$work/stick,fs=fat16" \
  --partition "$work/rootfs,fs=ext4" --partition "$work/empty,fs=iso,bootable" --boot=syslinux,extlinux
fails 2 '--kernel=vmlinuz: nothing boots without a loader' no "$work/rootfs" --fs=fat --kernel=vmlinuz
fails 2 '--kernel=boot/none: no file of the sources' \
  no "$work/rootfs" --fs=fat --boot=syslinux --kernel=boot/none
fails 2 '--initrd=/etc/passwd: no file of the sources' no "$work/rootfs" --fs=fat --boot=syslinux \
  --kernel=boot/vmlinuz-6.1.0-10-amd64 --initrd=/etc/passwd
fails 2 'a=.*--boot=lilo: none of' "$MKVIRTFS" serve "a=$work/rootfs,fs=fat,boot=lilo" -U "$work/sock"
mkdir -p "$work/arm/boot" "$work/blank/boot"
{ head -c 56 /dev/zero && printf 'ARM\x64' && head -c 4000 /dev/zero; } >"$work/arm/boot/vmlinuz-6.1"
fails 1 'boot/vmlinuz-6.1 is a kernel for arm64, and a PC with a BIOS starts those for x86' \
  no "$work/arm" --fs=fat --boot=syslinux --append=root=/dev/vda
echo kernel >"$work/blank/boot/vmlinuz-6.1 my own"
fails 1 'names no such path: it has a blank' no "$work/blank" --fs=fat --boot=syslinux --append=root=/dev/vda
fails 1 'no source has a kernel .*--kernel' no "$work/empty" --fs=fat --boot=syslinux
fails 1 'the smallest|needs|does not fit|too small' no "$work/rootfs" --fs=fat12 --size=64K --boot=syslinux \
  --append=root=/dev/fd0
