#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# boot_test.sh KERNEL-DIR WHAT: a BIOS boots what mkvirtfs serves, with nothing written: QEMU reads the
# export, and a line comes out of the serial port that only the booted system prints.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/../vm/vm.sh"
source "$here/../vm/boot_lib.sh"

# boot_from PATTERN QEMU-ARGUMENT...: the console has a line that matches, in 60 seconds. A machine that got less than
# half of a processor for so long was starved by a busy host, and starts once more.
boot_from() {
  local pattern=$1 status seconds=60 attempt
  shift
  for attempt in first second; do
    status=0
    TIMEFORMAT='%U %S'
    { time timeout --kill-after=5 $seconds qemu-system-x86_64 -accel tcg -cpu max -m 512 -nodefaults \
      -no-user-config -display none -no-reboot -serial "file:$work/console" -net none -vga std \
      -device isa-debug-exit,iobase=0xf4,iosize=4 "$@" </dev/null 2>"$work/qemu.err"; } 2>"$work/time" || status=$?
    tr -d '\r\0' <"$work/console" | sed 's/\x1b\[[0-9;=]*[a-zA-Z]//g' >"$work/text"
    ! grep -qE -- "$pattern" "$work/text" || return 0
    if ((status != 124)) || ! awk -v most=$((seconds / 2)) '{exit $1 + $2 > most}' "$work/time"; then break; fi
    echo "the $attempt machine got $(cat "$work/time") s of a processor in $seconds s"
  done
  fail "no '$pattern' (QEMU's status: $status $(cat "$work/qemu.err")) on the console:
$(tail -n 60 "$work/text")"
}

# make_payload FILE: what boots as a kernel, and prints its command line and its initrd (bootsect/testing/payload.S).
make_payload() {
  as --32 -o "$work/payload.o" "$here/../../bootsect/testing/payload.S"
  ld -m elf_i386 -Ttext 0 -e 0 --oformat binary -o "$1" "$work/payload.o"
  python3 - "$1" <<'END'
import struct
import sys

with open(sys.argv[1], "r+b") as file:
    code = file.read()[0x400:]
    file.seek(-4, 2)
    file.write(struct.pack("<I", -sum(struct.unpack(f"<{len(code) // 4}I", code)) & 0xFFFFFFFF))
END
}

case $2 in
  floppy)
    mkdir "$work/floppy"
    as --32 -o "$work/payload.o" "$here/../vm/boot_payload.s"
    ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o "$work/floppy/payload.bin" "$work/payload.o"
    truncate -s 512 "$work/floppy/payload.bin"
    printf 'SERIAL 0 115200\nDEFAULT go\nLABEL go\n  BOOT payload.bin\n' >"$work/floppy/syslinux.cfg"
    start_server "$work/floppy" --fs=fat12 --size=1440K --boot=syslinux -U "$work/sock"
    boot_from '^BOOTED: payload' -drive "file=$uri,format=raw,if=floppy,readonly=on" -boot a
    ;;
  fat16 | fat32 | gpt)
    make_tree "$1"
    table=mbr fs=$2
    [[ $2 != gpt ]] || table=gpt fs=fat32
    start_server "$work/tree" --fs="$fs" --table="$table" --boot=syslinux \
      --append='no_timer_check loglevel=4 panic=-1' -U "$work/sock"
    nbdcopy "$uri" "$work/disk.img"
    id=$(sfdisk --disk-id "$work/disk.img")-01
    id=${id#0x}
    [[ $table == mbr ]] || id=$(sfdisk --part-uuid "$work/disk.img" 1)
    boot_from "^BOOTED: $(cat "$work/tree/marker") vfat ${id,,}$" \
      -drive "file=$uri,format=raw,if=virtio,readonly=on"
    ;;
  extlinux-mbr | extlinux-gpt | grub-mbr | grub-gpt)
    make_tree "$1"
    loader=${2%-*} table=${2#*-}
    start_server "$work/tree" --fs=ext4 --table="$table" --boot="$loader" \
      --append='no_timer_check loglevel=4 panic=-1' -U "$work/sock"
    nbdcopy "$uri" "$work/disk.img"
    contains "$(sfdisk --verify "$work/disk.img" 2>&1)" '^No errors detected'
    dd if="$work/disk.img" of="$work/part" bs=1M skip=1 conv=sparse status=none
    e2fsck -fn "$work/part" >"$work/check" 2>&1 || fail "e2fsck: $(cat "$work/check")"
    id=$(sfdisk --disk-id "$work/disk.img")-01
    id=${id#0x}
    [[ $table == mbr ]] || id=$(sfdisk --part-uuid "$work/disk.img" 1)
    [[ $2 != grub-gpt ]] || contains "$(sfdisk --part-type "$work/disk.img" 2)" '^21686148-6449-6E6F-744E-656564454649$'
    boot_from "^BOOTED: $(cat "$work/tree/marker") ext4 ${id,,}$" \
      -drive "file=$uri,format=raw,if=virtio,readonly=on"
    ;;
  two)
    # Of two loaders on one disk the first one named boots.
    for fs in fat16 ext4; do
      mkdir -p "$work/$fs/boot"
      make_payload "$work/$fs/boot/vmlinuz-on-$fs"
    done
    for pair in "fat16 syslinux,extlinux" "ext4 extlinux,syslinux"; do
      read -r fs loaders <<<"$pair"
      start_server --table=mbr --partition "$work/fat16,fs=fat16" --partition "$work/ext4,fs=ext4" --boot="$loaders" \
        --append=root=/dev/none -U "$work/sock"
      boot_from "^mkvirtfs booted: BOOT_IMAGE=/boot/vmlinuz-on-$fs root=/dev/none" \
        -drive "file=$uri,format=raw,readonly=on,if=virtio"
      stop_server
    done
    ;;
  ext2 | ext3 | ext4 | cd | hybrid)
    mkdir -p "$work/small/boot"
    make_payload "$work/small/boot/vmlinuz-1"
    echo 'an initrd' >"$work/small/boot/initrd.img-1"
    loader=extlinux fs=$2 drive=if=virtio
    [[ $2 == ext* ]] || loader=isolinux fs=iso
    [[ $2 != cd ]] || drive=if=ide,media=cdrom
    start_server "$work/small" --fs="$fs" --boot="$loader" --append="root=/dev/none word=$2" -U "$work/sock"
    boot_from "^mkvirtfs booted: .*root=/dev/none word=$2 .* with an initrd$" \
      -drive "file=$uri,format=raw,readonly=on,$drive"
    ;;
  *) fail "no such boot: $2" ;;
esac
