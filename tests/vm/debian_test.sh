#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# debian_test.sh KERNEL-DIR ROOT-DIR: Debian boots from its own root tarball, which nobody unpacked, with a
# directory laid over it; dpkg finds every file of every package as it was packed.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/../vm/vm.sh"

kernel=$("$here/../vm/fetch-kernel" "$1")
tarball=$("$here/../vm/fetch-debian" "$2")

units=$work/overrides/system
mkdir -p "$units/multi-user.target.wants"
cat >"$units/report.service" <<'END'
[Unit]
Description=Tell the host how it went
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/sh -c 'echo "VM: root $(findmnt -no FSTYPE /)"; dpkg --verify | sed "s/^/VM: differs: /"; dpkg --audit; echo "VM: packages verified"'
ExecStart=/bin/sh -c 'dmesg | grep -E "EXT4-fs (error|warning)|I/O error" || echo "VM: kernel log clean"'
ExecStart=/bin/sh -c 'touch /var/lib/written && sync && echo "VM: end"'
ExecStopPost=/bin/systemctl poweroff --force
END
ln -s ../report.service "$units/multi-user.target.wants/report.service"

start_server "$tarball" --at=/etc/systemd "$work/overrides" --fs=ext4 --free=64M --rw -U "$work/socket"

make_switching_initrd "$work/initrd" "$kernel"
boot "$kernel" "$work/initrd" "$work/console" 480 -drive "file=$uri,format=raw,if=virtio" ||
  fail "QEMU: exit status $?: $(tail -n 30 "$work/console")"
tr -d '\r' <"$work/console" | grep -a '^VM: ' | tee "$work/verdicts" || true
equal "$(cat "$work/verdicts")" $'VM: root ext4\nVM: packages verified\nVM: kernel log clean\nVM: end' \
  "what Debian reports ($(tail -n 30 "$work/console"))"
