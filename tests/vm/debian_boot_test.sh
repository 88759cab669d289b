#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# debian_boot_test.sh ROOT-DIR bios|uefi: a whole Debian, with its own kernel and initrd, boots from two folders, an EFI
# system partition and a root that it may write to, until it asks who logs in. GRUB boots it by a BIOS, and systemd-boot
# by UEFI.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/../vm/boot_lib.sh"

tarball=$("$here/../vm/fetch-debian" "$1" linux-image-cloud-amd64)
mkdir "$work/esp" "$work/root"
# The kernel makes what stands in /dev.
tar -C "$work/root" --numeric-owner --xattrs --xattrs-include='*' --exclude='./dev/*' -xpf "$tarball"
echo "debian-$RANDOM" >"$work/root/etc/hostname"
echo 'for whom it may concern' >"$work/esp/readme.txt"

start_server --table=gpt --partition "$work/esp,fs=fat32,type=esp,size=256M" \
  --partition "$work/root,fs=ext4,type=root-x86-64,size=+512M" --boot=grub,systemd-boot --append='rw no_timer_check' \
  --rw --ctl="$work/ctl" -U "$work/sock"
keys=none
[[ $2 != bios ]] || keys=bios
started=$SECONDS
start_machine 120 "^$(cat "$work/root/etc/hostname") login:" -smp 2 -drive "file=$uri,format=raw,if=virtio"
echo "a login prompt after $((SECONDS - started)) s"
contains "$("$MKVIRTFS" ctl "$work/ctl" diff '')" ' 2/|partition 2'
