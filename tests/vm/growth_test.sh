#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# growth_test.sh KERNEL-DIR: Linux makes file systems ten times as large while they are mounted, without making them
# meta_bg, and U-Boot reads a file in the last group, beyond the 64th, of what came of it.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/growth.sh"
source "$here/../vm/vm.sh"

kernel=$("$here/../vm/fetch-kernel" "$1")
small_tree "$work/tree"
"$MANIFEST" "$work/tree" >"$work/source"
noise 65536 >"$work/last"

drives=()
for fs in ext4 ext2; do
  image=$work/$fs
  "$MKVIRTFS" dump "$work/tree" --fs=$fs --block-size=1024 --size=64M -o "$image"
  truncate -s 640M "$image"
  letters=ab
  letter=${letters:$((${#drives[@]} / 2)):1}
  drives+=(-drive "file=$image,format=raw,if=virtio")
  echo "grow vd$letter $fs source" >>"$work/plan"
done
make_initrd "$work/initrd" "$kernel" "$work/plan" "$work/source"
boot "$kernel" "$work/initrd" "$work/console" 480 "${drives[@]}" || fail "QEMU: exit status $?"
tr -d '\r' <"$work/console" | grep -a '^VM: ' | tee "$work/verdicts" || true
equal "$(grep -c '^VM: ok' "$work/verdicts")" 3 "$(cat "$work/console")
steps that went well"

# u_boot IMAGE: types the commands when U-Boot has prompted for them.
u_boot() {
  timeout --kill-after=5 240 python3 - "$1" "$(stat -c %s "$work/last")" <<'END'
import re, subprocess, sys
image, size = sys.argv[1:]
machine = subprocess.Popen(
    ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-m", "256",
     "-bios", "/usr/lib/u-boot/qemu-x86/u-boot.rom", "-serial", "stdio",
     "-drive", f"file={image},format=raw,if=ide,snapshot=on"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
said = b""

def until(pattern):
    global said
    while not re.search(pattern, said):
        more = machine.stdout.read1(4096)
        if not more:
            sys.exit(f"U-Boot ended: {said.decode(errors='replace')}")
        said += more
    before, said = said, b""
    return before.decode(errors="replace")

def command(text):
    machine.stdin.write(text.encode() + b"\n")
    machine.stdin.flush()
    return until(rb"\n=> $")

try:
    machine.stdin.write(b"\n\n")  # ends the countdown
    machine.stdin.flush()
    until(rb"=> $")
    loaded = command("ext4load ide 0 0x1000000 /last")
    while "Bad device specification" in loaded:  # on a busy host U-Boot gives up the disk too early, and looks again
        command("ide reset")
        loaded = command("ext4load ide 0 0x1000000 /last")
    print(loaded)
    print(command(f"crc32 0x1000000 {int(size):x}"))
finally:
    machine.kill()
END
}
crc=$(python3 -c 'import sys, zlib; print("%08x" % zlib.crc32(open(sys.argv[1], "rb").read()))' "$work/last")
for fs in ext4 ext2; do
  has_grown "$work/$fs" 655360
  fill_to_last_group "$work/$fs" "$work/last"
  said=$(u_boot "$work/$fs") || fail "U-Boot: $said"
  contains "$said" "==> $crc"
done
