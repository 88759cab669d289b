#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Disks with partitions from outside: partitioning tools print the list that was asked for, file
# system checkers are silent about each partition, and serving, dumping, inspecting and writing
# see one disk.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

mkdir -p "$work/boot/EFI" "$work/rootfs/etc" "$work/rootfs/boot"
echo esp >"$work/boot/EFI/file"
echo '127.0.0.1 localhost' >"$work/rootfs/etc/hosts"
noise 300000 >"$work/rootfs/etc/noise"
printf 'a ready image' >"$work/raw"
truncate -s 3M "$work/raw"
find "$work/boot" "$work/rootfs" "$work/raw" -exec touch -h -d '2024-02-03 04:05:06 UTC' {} +

# part_of FILE OFFSET SIZE: the bytes of a partition as a file of their own, in $work/part.
part_of() {
  dd if="$1" of="$work/part" bs=1M iflag=skip_bytes,count_bytes skip="$2" count="$3" \
    conv=sparse status=none
}

# starts FILE: of each partition "number start size" in bytes, as sfdisk sees them.
starts() {
  sfdisk --json "$1" | python3 -c 'import json, sys
table = json.load(sys.stdin)["partitiontable"]
size = table.get("sectorsize", 512)
for number, each in enumerate(table["partitions"], 1):
    print(number, each["start"] * size, each["size"] * size)'
}

# check_part FILE NUMBER CHECKER...: a file system checker has nothing to say of the partition.
check_part() {
  local file=$1 number=$2 start size
  shift 2
  read -r _ start size < <(starts "$file" | sed -n "${number}p")
  part_of "$file" "$start" "$size"
  "$@" "$work/part" >"$work/check" 2>&1 || fail "$* partition $number: $(cat "$work/check")"
}

# shellcheck disable=SC2054  # the commas are those of the words
four=(--partition "$work/boot,fs=fat32,type=esp,name=EFI,label=ESP,size=64M,attribute=required"
  --partition "$work/rootfs,fs=ext4,type=root-x86-64,name=root,label=root,size=+16M"
  --partition "$work/raw,fs=raw,type=linux,bootable"
  --partition swap,size=8M,label=swapped)

# A GPT: every tool has the same list.
"$MKVIRTFS" dump "${four[@]}" --disk-id=11111111-2222-4333-8444-555555555555 -o "$work/gpt.img" \
  >/dev/null
contains "$(sfdisk --verify "$work/gpt.img" 2>&1)" '^No errors detected'
contains "$(sgdisk -v "$work/gpt.img")" '^No problems found'
sfdisk --json "$work/gpt.img" | python3 -c 'import json, sys
table = json.load(sys.stdin)["partitiontable"]
assert table["label"] == "gpt" and table["id"].lower() == "11111111-2222-4333-8444-555555555555", table
rows = [(each["type"], each.get("name", ""), each.get("attrs", "")) for each in table["partitions"]]
assert rows == [
    ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "EFI", "RequiredPartition"),
    ("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "root", ""),
    ("0FC63DAF-8483-4772-8E79-3D69D8477DE4", "", "LegacyBIOSBootable"),
    ("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "", "")], rows
sizes = [each["size"] for each in table["partitions"]]
assert sizes[0] == 64 << 11 and sizes[2] == 3 << 11 and sizes[3] == 8 << 11, sizes
assert all(each["start"] % 2048 == 0 for each in table["partitions"]), table'
parted -sm "$work/gpt.img" unit s print >"$work/parted" 2>&1
equal "$(sed -nE 's/^([0-9]+):[^:]*:[^:]*:[^:]*:([^:]*):([^:]*):.*/\1 \2 \3/p' "$work/parted" | sed 's/ *$//')" \
  "1 fat32 EFI
2 ext4 root
3
4 linux-swap(v1)" "parted's list"
sgdisk -p "$work/gpt.img" >"$work/sgdisk"
equal "$(awk '$1 ~ /^[1-4]$/ {print $1, $6}' "$work/sgdisk")" "1 EF00
2 8304
3 8300
4 8200" "sgdisk's list"
check_part "$work/gpt.img" 1 fsck.fat -n
contains "$(minfo -i "$work/part" ::)" 'hidden sectors: 2048'
contains "$(blkid -p "$work/part")" 'LABEL="ESP".* TYPE="vfat"'
check_part "$work/gpt.img" 2 e2fsck -fn
contains "$(blkid -p "$work/part")" 'LABEL="root".* TYPE="ext4"'
read -r _ start size < <(starts "$work/gpt.img" | sed -n 3p)
part_of "$work/gpt.img" "$start" "$size"
same "$work/part" "$work/raw"
check_part "$work/gpt.img" 4 blkid -p
contains "$(cat "$work/check")" 'LABEL="swapped" UUID="[0-9a-f-]{36}".* TYPE="swap"'
contains "$(blkid -p "$work/gpt.img")" 'PTUUID="11111111-2222-4333-8444-555555555555" PTTYPE="gpt"'

# The same disk is served, at once and in pieces, and the same again: nothing in it is by chance.
start_server "${four[@]}" --disk-id=11111111-2222-4333-8444-555555555555 -U "$work/sock"
nbdcopy "$uri" "$work/served.img"
same "$work/served.img" "$work/gpt.img"
stop_server
sha256sum <"$work/gpt.img" >"$work/first"
"$MKVIRTFS" dump "${four[@]}" --disk-id=11111111-2222-4333-8444-555555555555 -o "$work/gpt.img" \
  --force >/dev/null
equal "$(sha256sum <"$work/gpt.img")" "$(cat "$work/first")" "a second dump"

# Clients write to it, and to a clone of it, and an overlay that is kept finds the disk again.
start_server "${four[@]}" --overlay "$work/disk.ovl" -U "$work/sock"
nbdsh --uri "$uri" -c 'h.pwrite(b"written", 70 << 20)' -c 'h.flush()'
stop_server
start_server "${four[@]}" --overlay "$work/disk.ovl" -U "$work/sock"
equal "$(nbdsh --uri "$uri" -c 'print(bytes(h.pread(7, 70 << 20)).decode())')" written
stop_server
echo changed >>"$work/rootfs/etc/hosts"
fails 2 '2/etc/hosts' "$MKVIRTFS" serve "${four[@]}" --overlay "$work/disk.ovl" -U "$work/sock"
"$MKVIRTFS" overlay info "$work/disk.ovl" >/dev/null

# What inspect says.
"$MKVIRTFS" inspect "${four[@]}" >"$work/facts"
contains "$(cat "$work/facts")" '^ +2 +[0-9]+ +[0-9]+ +root-x86-64 +ext4 +[0-9a-f-]{36}  root$'
"$MKVIRTFS" inspect "${four[@]}" --json | python3 -c 'import json, sys
facts = json.load(sys.stdin)
assert "tree_id" not in facts and facts["image"]["partition_count"] == 4, facts
rows = [(each["number"], each["type"], each["holds"]) for each in facts["partitions"]]
assert rows == [(1, "esp", "fat32"), (2, "root-x86-64", "ext4"), (3, "linux", "raw"),
                (4, "swap", "swap")], rows
assert facts["partitions"][0]["image"]["hidden_sector_count"] == 2048'
contains "$("$MKVIRTFS" inspect "${four[@]}" --map 512)" 'memory +GPT'
contains "$("$MKVIRTFS" inspect "${four[@]}" --map 1M)" 'partition 1 .*: boot sector'
contains "$("$MKVIRTFS" inspect "${four[@]}" --map)" 'partition 2 .*: file /etc/noise'

# A hybrid: the same disk to what knows a GPT, and three of its partitions to what does not.
"$MKVIRTFS" dump "${four[@]}" --table=hybrid --disk-id=11111111-2222-4333-8444-555555555555 -o "$work/hybrid.img" \
  >/dev/null
contains "$(sgdisk -v "$work/hybrid.img")" '^No problems found'
contains "$(sfdisk --verify "$work/hybrid.img" 2>&1)" '^No errors detected'
equal "$(starts "$work/hybrid.img")" "$(starts "$work/gpt.img")" "sfdisk's list"
for tool in sgdisk parted fdisk; do
  for image in hybrid gpt; do
    case $tool in
      sgdisk) sgdisk -p "$work/$image.img" ;;
      parted) parted -sm "$work/$image.img" unit s print ;;
      fdisk) fdisk -l -o Start,End,Type "$work/$image.img" ;;
    esac 2>&1 | grep -E '^ *[0-9]+[: ]' >"$work/$image.list"
  done
  equal "$(wc -l <"$work/hybrid.list")" 4 "lines of $tool"
  same "$work/hybrid.list" "$work/gpt.list"
done
contains "$(blkid -p "$work/hybrid.img")" 'PTUUID="11111111-2222-4333-8444-555555555555" PTTYPE="gpt"'
printf 'p\n' | fdisk -t dos -b 512 "$work/hybrid.img" 2>/dev/null | grep -oE ' ([*] +)?[0-9]+ +[0-9]+ +[0-9]+ +[0-9.]+[KM] +[0-9a-f]+ ' |
  awk '{print $NF, $1 == "*" ? "active " $2 : $1}' >"$work/shown"
equal "$(cat "$work/shown")" "ee 1
ef 2048
83 133120
83 active $(starts "$work/hybrid.img" | awk '$1 == 3 {print $2 / 512}')" "what an MBR shows"
check_part "$work/hybrid.img" 1 fsck.fat -n
check_part "$work/hybrid.img" 2 e2fsck -fn
contains "$("$MKVIRTFS" inspect "${four[@]}" --table=hybrid)" 'partition table +hybrid'
contains "$("$MKVIRTFS" inspect "${four[@]}" --table=hybrid --map 512)" 'hybrid MBR|GPT'

# An MBR of six, by letter and byte and alias; parts outside the table; logical ones.
# shellcheck disable=SC2054
six=(--table=mbr --disk-id=cafe0001 --partition "$work/boot,fs=fat16,size=32M,bootable"
  --partition "$work/rootfs,fs=ext2,size=16M" --partition blank,size=1M,type=0xda
  --partition blank,size=1M,type=L --partition swap,size=1M
  --partition "$work/rootfs,fs=ext3,size=16M" --partition "$work/raw,fs=raw,table=no,offset=64K,size=512K")
fails 1 'part outside the table .*, and what stands in it needs 3145728' "$MKVIRTFS" dump "${six[@]}" -o "$work/no.img"
truncate -s 300K "$work/small" && printf blob | dd of="$work/small" conv=notrunc status=none
six[-1]="$work/small,fs=raw,table=no,offset=64K"
"$MKVIRTFS" dump "${six[@]}" -o "$work/mbr.img" >/dev/null
contains "$(sfdisk --verify "$work/mbr.img" 2>&1)" '^No errors detected'
sfdisk --json "$work/mbr.img" | python3 -c 'import json, sys
table = json.load(sys.stdin)["partitiontable"]
assert table["label"] == "dos" and table["id"] == "0xcafe0001", table
rows = [(each["node"].rsplit("img", 1)[1], each["type"], each.get("bootable", False))
        for each in table["partitions"]]
assert rows == [("1", "e", True), ("2", "83", False), ("3", "da", False), ("4", "f", False),
                ("5", "83", False), ("6", "82", False), ("7", "83", False)], rows'
parted -sm "$work/mbr.img" unit s print >"$work/parted" 2>&1
equal "$(grep -cE '^[1-7]:' "$work/parted")" 7 "parted's list: $(cat "$work/parted")"
equal "$(dd if="$work/mbr.img" bs=64K skip=1 count=1 status=none | head -c 4)" blob
check_part "$work/mbr.img" 1 fsck.fat -n
check_part "$work/mbr.img" 2 e2fsck -fn
check_part "$work/mbr.img" 7 e2fsck -fn

# A table alone: the source is the one partition, and fills a disk of a given size.
for table in mbr gpt; do
  "$MKVIRTFS" dump "$work/rootfs" --fs=ext4 --table=$table --size=64M --label=whole \
    -o "$work/whole.img" --force >/dev/null
  equal "$(stat -c %s "$work/whole.img")" $((64 << 20)) "size of the disk"
  contains "$(sfdisk --verify "$work/whole.img" 2>&1)" '^No errors detected'
  check_part "$work/whole.img" 1 e2fsck -fn
  contains "$(blkid -p "$work/part")" 'LABEL="whole"'
  equal "$(starts "$work/whole.img" | awk '{print $2, ($3 >= 61 * 1024 * 1024)}')" '1048576 1'
done
start_server --table=mbr --fs=fat a="$work/rootfs" b="$work/rootfs,table=none" -U "$work/sock"
nbdcopy "$uri" "$work/a.img"
contains "$(sfdisk --json "$work/a.img")" '"type": "[1e]"|"type": "c"'
stop_server

# Sectors of 4096 bytes: the tools that know them agree, and clients are told.
large=(--sector-size=4096 --partition "$work/boot,fs=fat32,type=esp,size=300M"
  --partition "$work/rootfs,fs=ext4,type=linux,size=4M")
"$MKVIRTFS" dump "${large[@]}" -o "$work/large.img" >/dev/null
fdisk -b 4096 -l "$work/large.img" >"$work/fdisk" 2>&1
contains "$(cat "$work/fdisk")" 'Sector size \(logical/physical\): 4096 bytes'
equal "$(awk '/large.img[12]/ {print $2, $6, $7}' "$work/fdisk" | sed -n 1p)" '256 EFI System'
equal "$(awk '/large.img[12]/ {print $6, $7}' "$work/fdisk" | sed -n 2p)" 'Linux filesystem'
part_of "$work/large.img" $((1 << 20)) $((300 << 20))
fsck.fat -n "$work/part" >"$work/check" || fail "fsck.fat: $(cat "$work/check")"
contains "$(minfo -i "$work/part" ::)" 'sector size: 4096'
contains "$(minfo -i "$work/part" ::)" 'hidden sectors: 256'
part_of "$work/large.img" $((301 << 20)) $((4 << 20))
e2fsck -fn "$work/part" >"$work/check" 2>&1 || fail "e2fsck: $(cat "$work/check")"
contains "$(dumpe2fs -h "$work/part" 2>/dev/null)" 'Block size: +4096'
start_server "${large[@]}" -U "$work/sock"
contains "$(nbdinfo "$uri")" 'block_size_minimum: 4096'
stop_server
start_server "${large[@]}" --rw -U "$work/sock"
contains "$(nbdinfo "$uri")" 'block_size_minimum: 4096'
nbdsh --uri "$uri" -c 'h.pwrite(b"x" * 4096, 8192)' -c 'assert h.pread(4096, 8192) == b"x" * 4096'
stop_server

# Mistakes.
dump() { "$MKVIRTFS" dump -o "$work/no.img" "$@"; }
fails 2 'beside --partition there is no SOURCE' dump "$work/rootfs" --partition "$work/rootfs"
fails 2 'partitions need a table \(try --table=gpt or --table=mbr\)' \
  dump --table=none --partition "$work/rootfs"
fails 2 'an MBR can show none of these partitions.*\(try --table=gpt\)' dump --table=hybrid --partition blank,size=1M,type=bios-boot
fails 2 '--disk-id=cafe0001: not a UUID' dump --table=hybrid --disk-id=cafe0001 "$work/rootfs"
fails 2 '^mkvirtfs: --partition=.*/rootfs,name=.*at most 36 units' \
  dump --partition "$work/rootfs,name=0123456789012345678901234567890123456"
fails 2 '^mkvirtfs: --partition=.*/rootfs,name=x: partitions of an MBR have no names' dump --table=mbr --partition "$work/rootfs,name=x"
fails 2 '^mkvirtfs: --partition=.*/rootfs,type=x: not a type of partitions' dump --partition "$work/rootfs,type=x"
fails 2 '^mkvirtfs: --partition=.*/rootfs,offset=77: not a multiple' dump --partition "$work/rootfs,offset=77"
fails 2 'overlaps.*\(try --partition=.*/rootfs,offset\)$' \
  dump --partition "$work/rootfs,offset=1M" --partition "$work/rootfs,offset=1M"
fails 2 'swap space needs a size' dump --partition swap
fails 2 'a partition has no option offsett \(did you mean offset\?\)' dump --partition swap,offsett=1M
fails 2 'overlaps' dump --partition blank,size=1M --partition "$work/raw,fs=raw,table=no,offset=1M"
fails 2 'not a type of partitions' dump --partition "$work/rootfs,type=nothing"
fails 2 'for which architecture is not known' dump --partition "$work/rootfs,type=root"
fails 2 'a partition has this option, and not the disk' \
  dump --label=x --partition "$work/rootfs"
fails 2 'blocks that are smaller than the disk.s sectors' \
  dump --sector-size=4096 --partition "$work/rootfs,block-size=1024"
fails 2 'sectors of 512 or 4096' dump --table=gpt --sector-size=1024 "$work/rootfs"
fails 2 'not eight hexadecimal digits' dump --table=mbr --disk-id=xyz "$work/rootfs"
"$MKVIRTFS" inspect --partition "$work/rootfs,type=root,platform=linux/arm64" >"$work/facts"
contains "$(cat "$work/facts")" ' root-arm64 '

# What is wrong with a partition is said of its own options, and what is wrong with the only one of those that were given.
echo one >"$work/one"
fails 2 '--partition=.*,label=abcdefghijklmnopqrstuvwxyz: partition 1 .*: ext labels are up to 16 bytes' \
  "$MKVIRTFS" inspect --partition "$work,fs=ext4,include=/one,exclude=/**,label=abcdefghijklmnopqrstuvwxyz"
fails 2 '--partition=.*,cluster-size: ext4 has no such option' "$MKVIRTFS" inspect --partition "$work,fs=ext4,cluster-size=3"
fails 2 'swap space needs a size \(try --partition=swap,size\)' "$MKVIRTFS" inspect --partition swap
fails 1 '--size=1048576: partition 1 .*: too small' "$MKVIRTFS" inspect "$work" --include=/one --exclude='/**' --fs=ext4 \
  --table=mbr --size=1M
