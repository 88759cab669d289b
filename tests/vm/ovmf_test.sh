#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# UEFI firmware reads what mkvirtfs serves: the shell that OVMF holds finds startup.nsh on a FAT
# volume, and runs it on one of each width.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"

mkdir -p "$work/esp/A directory with a long name" "$work/esp/EFI/BOOT"
noise 2000000 >"$work/esp/noise.bin"
cp "$work/esp/noise.bin" "$work/esp/A directory with a long name/the same noise.bin"
printf 'text behind a long name\r\n' >"$work/esp/A directory with a long name/some text.txt"
{
  echo '@echo -off'
  for volume in fs0 fs1 fs2; do
    printf 'vol %s:\n' "$volume"
    printf 'type "%s:\\A directory with a long name\\some text.txt"\n' "$volume"
    printf 'comp %s:\\noise.bin "%s:\\A directory with a long name\\the same noise.bin"\n' \
      "$volume" "$volume"
  done
  echo 'echo done'
  echo 'reset -s'
} >"$work/esp/startup.nsh"

drives=()
for fs in fat12 fat16 fat32; do
  start_server "$work/esp" --fs=$fs --label="of $fs" -U "$work/$fs"
  drives+=(-drive "file=$uri,format=raw,if=virtio,readonly=on")
done
# Emulated: firmware does not run under every KVM.
timeout --kill-after=5 200 qemu-system-x86_64 -accel tcg -m 256 -nodefaults -no-user-config \
  -display none -no-reboot -serial "file:$work/console" -net none \
  -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd "${drives[@]}" \
  </dev/null || fail "QEMU: exit status $?"
tr -d '\r\0' <"$work/console" | sed 's/\x1b\[[0-9;=]*[a-zA-Z]//g' >"$work/text"
contains "$(cat "$work/text")" '^done'
equal "$(grep -c 'text behind a long name' "$work/text")" 3 "texts in: $(cat "$work/text")"
equal "$(grep -c 'no differences encountered' "$work/text")" 3 "equal files in: $(cat "$work/text")"
for fs in FAT12 FAT16 FAT32; do contains "$(cat "$work/text")" "OF $fs"; done
