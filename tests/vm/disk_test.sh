#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# disk_test.sh KERNEL-DIR: Linux finds the partitions of a disk with sectors of 4096 bytes on a device that has such blocks,
# and those of an MBR with logical partitions, where fdisk has them; it mounts the file systems in them and takes the
# swap space. And it reads an extended attribute from an inode of its own.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/../vm/vm.sh"

kernel=$("$here/../vm/fetch-kernel" "$1")
mkdir "$work/boot"
echo "marker-$RANDOM$RANDOM" >"$work/boot/marker"
"$here/torture_tree.py" "$work/tree" --without deep
"$MANIFEST" "$work/tree" >"$work/source"

drives=()
plan=$work/plan
# disk LETTER SECTOR-BYTES OPTION...: serves a disk to the guest as vdLETTER, whose blocks are its sectors, and leaves where
# fdisk sees its partitions in table-LETTER: number, start and length, in units of 512 bytes. Of an extended partition
# the kernel shows 1 KiB.
disk() {
  local letter=$1 bytes=$2
  shift 2
  start_server "$@" --sector-size="$bytes" -U "$work/$letter"
  drives+=(-drive "file=$uri,format=raw,if=none,id=$letter,snapshot=on"
    -device "virtio-blk-pci,drive=$letter,logical_block_size=$bytes,physical_block_size=$bytes")
  nbdcopy "$uri" "$work/disk.img"
  fdisk -b "$bytes" -l -o Device,Start,Sectors,Type "$work/disk.img" |
    sed -n "s|^$work/disk.img||p" | awk -v units=$((bytes / 512)) \
    '{print $1, $2 * units, /Ext.d/ ? 2 : $3 * units}' >"$work/table-$letter"
  rm "$work/disk.img"
  echo "table vd$letter $bytes table-$letter" >>"$plan"
}
disk a 4096 --table=gpt --partition "$work/boot,fs=fat16,type=esp,size=64M" \
  --partition "$work/tree,fs=ext4,type=root-x86-64" --partition swap,size=8M
equal "$(wc -l <"$work/table-a")" 3 "partitions that fdisk sees"
disk b 512 --table=mbr --partition "$work/boot,fs=fat12,size=2M" --partition blank,size=1M --partition blank,size=1M \
  --partition swap,size=8M --partition "$work/tree,fs=ext2"
equal "$(wc -l <"$work/table-b")" 6 "partitions that fdisk sees, the extended one among them"
marker=$(cat "$work/boot/marker")
for letter in a b; do
  root=2 swap=3
  [[ $letter == a ]] || root=6 swap=5
  type=ext4
  [[ $letter == a ]] || type=ext2
  echo "vfat_file vd${letter}1 marker $marker
read_only vd$letter$root $type source
swap_space vd$letter$swap" >>"$plan"
done

python3 - "$work/attributes.tar" <<'END'
import io, sys, tarfile
with tarfile.open(sys.argv[1], "w", format=tarfile.PAX_FORMAT) as archive:
    member = tarfile.TarInfo("large")
    member.size = 2
    member.pax_headers = {"SCHILY.xattr.user.key": "".join(chr(97 + n * n % 26) for n in range(60000))}
    archive.addfile(member, io.BytesIO(b"x\n"))
END
sum=$(python3 -c 'print("".join(chr(97 + n * n % 26) for n in range(60000)))' | sha256sum | cut -c1-64)
start_server "$work/attributes.tar" --fs=ext4 -U "$work/c"
drives+=(-drive "file=$uri,format=raw,if=virtio,readonly=on")
echo "large_attribute vdc large user.key $sum" >>"$plan"

make_initrd "$work/initrd" "$kernel" "$plan" "$work/source" "$work/table-a" "$work/table-b"
boot "$kernel" "$work/initrd" "$work/console" 240 "${drives[@]}" || fail "QEMU: exit status $?"
tr -d '\r' <"$work/console" | grep -a '^VM: ' | tee "$work/verdicts" || true
equal "$(grep -c '^VM: ok' "$work/verdicts")" $(($(wc -l <"$plan") + 1)) "$(cat "$work/console")
steps that went well"
equal "$(tail -n 1 "$work/verdicts")" 'VM: end'
