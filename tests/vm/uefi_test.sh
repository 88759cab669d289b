#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# uefi_test.sh KERNEL-DIR WHAT: UEFI boots what mkvirtfs serves, with nothing written: QEMU reads the export, and a
# line comes out of the serial port that only the booted system prints.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/../vm/vm.sh"
source "$here/../vm/boot_lib.sh"

disk=(-drive "format=raw,if=virtio,readonly=on")
from_uri() { disk=(-drive "file=$uri,format=raw,if=virtio,readonly=on"); }
words='no_timer_check loglevel=4 panic=-1'

# two_folders: an ESP and a root. The kernel lies in the root.
two_folders() {
  make_tree "$1"
  mkdir "$work/esp"
  echo 'text' >"$work/esp/readme.txt"
}

part_uuid() {
  nbdcopy "$uri" "$work/disk.img"
  contains "$(sfdisk --verify "$work/disk.img" 2>&1)" '^No errors detected'
  sfdisk --part-uuid "$work/disk.img" "$1" | tr '[:upper:]' '[:lower:]'
}

case $2 in
  esp)
    two_folders "$1"
    start_server --partition "$work/esp,fs=fat32,type=esp,size=128M" --partition "$work/tree,fs=ext4" \
      --boot=systemd-boot --append="$words" -U "$work/sock"
    id=$(part_uuid 2)
    equal "$(sfdisk --part-type "$work/disk.img" 1)" C12A7328-F81F-11D2-BA4B-00A0C93EC93B "type of the ESP"
    from_uri
    start_machine 60 "^BOOTED: $(cat "$work/tree/marker") ext4 $id$" "${disk[@]}"
    ;;
  uki)
    make_tree "$1"
    start_server "$work/tree" --fs=ext4 --esp=128M --boot=uki --append="$words" -U "$work/sock"
    id=$(part_uuid 1)
    from_uri
    start_machine 60 "^BOOTED: $(cat "$work/tree/marker") ext4 $id$" "${disk[@]}"
    ;;
  signed)
    keys=ms
    two_folders "$1"
    start_server --partition "$work/esp,fs=fat32,type=esp,size=128M" --partition "$work/tree,fs=ext4" \
      --boot=uefi-signed --append="$words" -U "$work/sock"
    id=$(part_uuid 2)
    from_uri
    start_machine 120 "^BOOTED: $(cat "$work/tree/marker") ext4 $id$" "${disk[@]}"
    ;;
  refused)
    # The control: what nobody has signed does not start there.
    keys=ms
    make_tree "$1"
    start_server "$work/tree" --fs=fat32 --boot=systemd-boot --append="$words" -U "$work/sock"
    from_uri
    start_machine 120 'Access Denied' "${disk[@]}"
    ! grep -q '^BOOTED' "$work/text" || fail "it booted"
    ;;
  floppy)
    make_tree "$1"
    start_server "$work/tree" --fs=fat32 --boot=systemd-boot --append="$words" -U "$work/sock"
    from_uri
    start_machine 60 "^BOOTED: $(cat "$work/tree/marker") vfat [0-9A-F-]*$" "${disk[@]}"
    ;;
  mbr)
    make_tree "$1"
    start_server "$work/tree" --fs=fat32 --table=mbr --boot=uki --append="$words" -U "$work/sock"
    nbdcopy "$uri" "$work/disk.img"
    equal "$(sfdisk --part-type "$work/disk.img" 1)" ef "type of the ESP"
    id=$(sfdisk --disk-id "$work/disk.img")-01
    from_uri
    start_machine 60 "^BOOTED: $(cat "$work/tree/marker") vfat ${id#0x}$" "${disk[@]}"
    ;;
  4096)
    make_tree "$1"
    start_server "$work/tree" --fs=ext4 --esp=128M --sector-size=4096 --boot=systemd-boot --append="$words" \
      -U "$work/sock"
    start_machine 60 "^BOOTED: $(cat "$work/tree/marker") ext4 [0-9a-f-]*$" \
      -drive "file=$uri,format=raw,if=none,id=disk,readonly=on" \
      -device virtio-blk-pci,drive=disk,logical_block_size=4096,physical_block_size=4096
    ;;
  loader)
    # The way of one's own keys: what was dumped comes back as the loader.
    make_tree "$1"
    "$MKVIRTFS" dump "$work/tree" --fs=fat32 --boot=uki --append="$words root=PARTUUID=cafe0001-01" -o "$work/once"
    mcopy -i "$work/once" ::EFI/BOOT/BOOTX64.EFI "$work/mine.efi"
    mkdir "$work/small"
    cp "$work/tree/marker" "$work/small"
    start_server "$work/small" --fs=fat32 --size=100M --table=mbr --disk-id=cafe0001 --boot=uefi \
      --loader="$work/mine.efi" -U "$work/sock"
    from_uri
    start_machine 60 "^BOOTED: $(cat "$work/tree/marker") vfat cafe0001-01$" "${disk[@]}"
    ;;
  hybrid | hybrid-stick)
    # Both kinds of firmware boot a disk that has a GPT and an MBR: GRUB from a BIOS-boot partition and systemd-boot from
    # an ESP, or a stick with one partition for SYSLINUX and systemd-boot.
    two_folders "$1"
    system='ext4' number=2
    # shellcheck disable=SC2054  # the commas are those of the words
    image=(--partition "$work/esp,fs=fat32,type=esp,size=128M" --partition "$work/tree,fs=ext4" --boot=grub,systemd-boot)
    # shellcheck disable=SC2054
    [[ $2 == hybrid ]] || system=vfat number=1 image=("$work/tree" --fs=fat32 --boot=syslinux,systemd-boot)
    start_server "${image[@]}" --table=hybrid --append="$words" -U "$work/sock"
    id=$(part_uuid $number)
    contains "$(sgdisk -v "$work/disk.img")" '^No problems found'
    from_uri
    start_machine 60 "^BOOTED: $(cat "$work/tree/marker") $system $id$" "${disk[@]}"
    keys=bios
    rm "$work/console"
    start_machine 60 "^BOOTED: $(cat "$work/tree/marker") $system $id$" "${disk[@]}"
    ;;
  cd | cd-signed | stick | stick-hybrid)
    # One image for a BIOS and for UEFI, as CD and as stick. What UEFI starts of it is over 32 MiB. Its kernel knows no
    # CD, so the initrd is what prints.
    make_tree "$1"
    noise 20000000 >"$work/tree/boot/more.img"
    loader=systemd-boot options=()
    [[ $2 != stick-hybrid ]] || options=(--table=hybrid)
    [[ $2 != cd-signed ]] || loader=uefi-signed keys=ms
    initrds=()
    for initrd in "$work/tree/boot/"initrd.img-* "$work/tree/boot/more.img"; do
      initrds+=(--initrd="boot/${initrd##*/}")
    done
    start_server "$work/tree" --fs=iso "${options[@]}" --boot="isolinux,$loader" \
      --append="$words root=PARTUUID=none" "${initrds[@]}" -U "$work/sock"
    nbdcopy "$uri" "$work/disk.img"
    xorriso -indev "stdio:$work/disk.img" -report_el_torito plain >"$work/report" 2>&1
    contains "$(cat "$work/report")" '^El Torito boot img : +2 +UEFI +y +none'
    from_uri
    [[ $2 != stick-hybrid ]] || contains "$(sgdisk -v "$work/disk.img")" '^No problems found'
    [[ $2 == stick* ]] || disk=(-drive "file=$uri,format=raw,if=none,id=cd,media=cdrom,readonly=on"
      -device "ide-cd,drive=cd")
    seconds=60
    [[ $keys != ms ]] || seconds=120
    start_machine $seconds '^BOOTED: no root PARTUUID=none$' "${disk[@]}"
    [[ $2 == stick* ]] || exit 0
    keys=bios
    rm "$work/console"
    start_machine 60 '^BOOTED: no root PARTUUID=none$' "${disk[@]}"
    ;;
  *) fail "no such boot: $2" ;;
esac
