#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# fat_test.sh KERNEL-DIR: Linux's vfat mounts what mkvirtfs serves as FAT of each width, finds the
# source in it, writes to an overlay of it, and fsck.fat is content with what it wrote, seen from
# either side. Linux's isofs finds the source in an ISO image, by Rock Ridge and by Joliet.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/../vm/vm.sh"

kernel=$("$here/../vm/fetch-kernel" "$1")
"$here/torture_tree.py" "$work/tree" --without deep
# A directory of 1,000 names instead of 3,000: vfat looks at each for each, and the guest is slow.
"$MANIFEST" "$work/tree" | "$here/fat_manifest.py" | grep -v '^wide/entry-[12]' >"$work/source"
(($(wc -l <"$work/source") > 1500)) || fail "most of the tree is gone: $(wc -l <"$work/source")"
# FAT12 ends at 4,084 clusters: it has a part of the tree.
grep -vE '^(wide|links)[/ ]' "$work/source" >"$work/part"
part=(--exclude=/wide --exclude=/links)

drives=()
written=()
plan=$work/plan
# drive STEP MANIFEST FS OPTIONS...: serves the tree to the guest's next disk (vda, vdb...).
drive() {
  local step=$1 manifest=$2 fs=$3 letters=abcdefgh extra=readonly=on
  shift 3
  [[ $step == *read_only ]] || { extra=readonly=off; set -- "$@" --rw; }
  local letter=${letters:$((${#drives[@]} / 2)):1}
  start_server "$work/tree" --fs="$fs" --skip-unfit --exclude='/wide/entry-[12]*' \
    -U "$work/$letter" "$@"
  [[ $step == *read_only ]] || written+=("$uri")
  drives+=(-drive "file=$uri,format=raw,if=virtio,$extra")
  echo "$step vd$letter $manifest" >>"$plan"
}
drive vfat_read_only part fat12 --label=twelve "${part[@]}"
drive vfat_read_only source fat16
drive vfat_read_only source fat32 --cluster-size=4096
drive vfat_read_only source fat32 --sector-size=4096
drive vfat_read_write part fat12 --free=20M "${part[@]}"
drive vfat_read_write source fat16
drive vfat_read_write source fat32

# ISO 9660: all of the tree but what takes minutes to read, and 4 GiB and more in a file. Linux lists
# names of one byte beyond ASCII, but does not find them.
"$here/torture_tree.py" "$work/iso-tree"
rm "$work/iso-tree/names/"$'\x80'
"$MANIFEST" "$work/iso-tree" | grep -v '^sparse/6-gib ' | "$here/iso_manifest.py" rock >"$work/rock"
"$MANIFEST" "$work/iso-tree/sizes" | "$here/iso_manifest.py" joliet >"$work/joliet"
start_server "$work/iso-tree" --fs=iso --exclude=/sparse/6-gib -U "$work/h"
drives+=(-drive "file=$uri,format=raw,if=virtio,readonly=on")
echo 'iso_read_only vdh rock ro .
iso_read_only vdh joliet norock,utf8 sizes' >>"$plan"
mkdir "$work/big"
truncate -s 5G "$work/big/big"
seq 3000 | dd of="$work/big/big" bs=4096 oflag=seek_bytes seek=4294960000 conv=notrunc status=none
sum=$(dd if="$work/big/big" bs=4096 skip=1048574 count=4 status=none | sha256sum | cut -c1-64)
start_server "$work/big" --fs=iso -U "$work/i"
drives+=(-drive "file=$uri,format=raw,if=virtio,readonly=on")
echo "iso_big vdi $sum" >>"$plan"

make_initrd "$work/initrd" "$kernel" "$plan" "$work/source" "$work/part" "$work/rock" \
  "$work/joliet"
boot "$kernel" "$work/initrd" "$work/console" 480 "${drives[@]}" || fail "QEMU: exit status $?"
tr -d '\r' <"$work/console" | grep -a '^VM: ' | tee "$work/verdicts" || true
equal "$(grep -c '^VM: ok' "$work/verdicts")" $(($(wc -l <"$plan") + 1)) "$(cat "$work/console")
steps that went well"
equal "$(tail -n 1 "$work/verdicts")" 'VM: end'
((${#server_pids[@]} == $(wc -l <"$plan") - 1)) && kill -0 "${server_pids[@]}" || fail "a server ended"

# What the guest wrote is there for others.
for uri in "${written[@]}"; do
  nbdcopy "$uri" "$work/written"
  fsck.fat -n "$work/written" >"$work/fsck" || fail "after the guest: $(cat "$work/fsck")"
  contains "$(mtype -i "$work/written" '::new/new entry with a long name to fill slots 299')" '^299$'
  rm "$work/written"
done
