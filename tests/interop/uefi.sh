#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# uefi.sh UNPACKED-DIR: what UEFI starts, without booting it (that is vm/uefi_test.sh): where the files are, what a
# unified kernel image is made of by other tools' account, and what is refused.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

# executable FILE [MACHINE [CERTIFICATE-BYTES [SECTION]]]: an executable of UEFI that is a kernel by its header.
executable() {
  python3 - "$@" <<'END'
import struct
import sys

path, machine, certificates, section = (sys.argv[1:] + ["8664", "0", ".text"][len(sys.argv) - 2 :])[:4]
certificates, header, code = int(certificates), 512, 70000
file = bytearray(header + code + certificates)
for at in range(header, len(file)):
    file[at] = at * 7 % 251
file[0:2] = b"MZ"
struct.pack_into("<I", file, 0x3C, 0x80)
file[0x80:0x82] = b"PE"
struct.pack_into("<HH", file, 0x84, int(machine, 16), 1)
struct.pack_into("<HH", file, 0x94, 160, 0x206)
optional = 0x98
struct.pack_into("<H", file, optional, 0x20B)
struct.pack_into("<II", file, optional + 32, 0x1000, 512)
struct.pack_into("<II", file, optional + 56, 0x20000, header)
struct.pack_into("<H", file, optional + 68, 10)
struct.pack_into("<I", file, optional + 108, 6)
if certificates:
    struct.pack_into("<II", file, optional + 144, header + code, certificates)
table = optional + 160
file[table : table + len(section)] = section.encode()
struct.pack_into("<IIII", file, table + 8, code, 0x1000, code, header)
file[0x202:0x206] = b"HdrS"
struct.pack_into("<HH", file, 0x206, 0x20F, 0)
struct.pack_into("<H", file, 0x20E, 0x100)
file[0x236:0x238] = b"\x01\x00"
version = b"6.1.0-10-amd64 (someone@somewhere) #1\0"
file[0x300 : 0x300 + len(version)] = version
open(path, "wb").write(file)
END
}

mkdir -p "$work/rootfs/boot" "$work/rootfs/etc" "$work/rootfs/sbin" "$work/esp/efi/boot" "$work/empty"
executable "$work/rootfs/boot/vmlinuz-6.1.0-10-amd64" 8664 24
printf 'an initrd' >"$work/rootfs/boot/initrd.img-6.1.0-10-amd64"
printf 'microcode' >"$work/rootfs/boot/ucode.img"
printf 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian of the test"\n' >"$work/rootfs/etc/os-release"
echo init >"$work/rootfs/sbin/init"
find "$work/rootfs" "$work/esp" -exec touch -h -d '2024-02-03 04:05:06 UTC' {} +

dump() { "$MKVIRTFS" dump -o "$work/disk.img" --force "$@" >"$work/out" 2>"$work/err"; }
file_in() { mtype -i "$work/disk.img@@$1" "::$2"; }
take() { rm -f "$3" && mcopy -n -i "$work/disk.img@@$1" "::$2" "$3"; }
check_fat() {
  dd if="$work/disk.img" of="$work/part" bs=1M skip="$1" count="$2" conv=sparse status=none
  fsck.fat -n "$work/part" >"$work/check" || fail "fsck.fat: $(cat "$work/check")"
}

# systemd-boot: an ESP that is made, and shows the kernel of the root.
dump "$work/rootfs" --fs=ext4 --size=96M --esp=40M --boot=systemd-boot --boot-timeout=3
[[ ! -s $work/err ]] || fail "dump said: $(cat "$work/err")"
equal "$(stat -c %s "$work/disk.img")" $((96 << 20)) "the disk's size"
contains "$(sgdisk -v "$work/disk.img")" '^No problems found'
equal "$(sfdisk --part-type "$work/disk.img" 2)" C12A7328-F81F-11D2-BA4B-00A0C93EC93B "the type of the ESP"
start=$(($(sfdisk --json "$work/disk.img" | python3 -c 'import json, sys
print(json.load(sys.stdin)["partitiontable"]["partitions"][1]["start"])') * 512))
id=$(sfdisk --part-uuid "$work/disk.img" 1)
equal "$(file_in $start loader/entries/linux.conf)" "title Linux 6.1.0-10-amd64
version 6.1.0-10-amd64
linux /boot/vmlinuz-6.1.0-10-amd64
initrd /boot/initrd.img-6.1.0-10-amd64
options root=PARTUUID=${id,,} console=tty0 console=ttyS0,115200"
equal "$(file_in $start loader/loader.conf)" $'default linux.conf\ntimeout 3'
take $start EFI/BOOT/BOOTX64.EFI "$work/taken"
same "$work/taken" /usr/lib/systemd/boot/efi/systemd-bootx64.efi
take $start boot/vmlinuz-6.1.0-10-amd64 "$work/taken"
same "$work/taken" "$work/rootfs/boot/vmlinuz-6.1.0-10-amd64"
check_fat $((start >> 20)) 40

# An entry in the source counts.
mkdir -p "$work/entries/loader/entries"
echo 'title mine' >"$work/entries/loader/entries/mine.conf"
dump "$work/entries" --fs=fat16 --boot=systemd-boot
! file_in 0 loader/entries/linux.conf 2>/dev/null || fail "an entry was made beside the source's"

# A unified kernel image, in a directory that the source spells in its own way.
dump --partition "$work/esp,fs=fat32,type=esp" --partition "$work/rootfs,fs=ext4" --boot=uki --append=quiet \
  --initrd=boot/ucode.img --initrd=boot/initrd.img-6.1.0-10-amd64
[[ ! -s $work/err ]] || fail "dump said: $(cat "$work/err")"
id=$(sfdisk --part-uuid "$work/disk.img" 2)
take 1M efi/boot/bootx64.efi "$work/uki.efi"
equal "$(objdump -h "$work/uki.efi" | awk '$1 ~ /^[0-9]+$/ && $1 > 7 {print $2}' | tr '\n' ' ')" \
  '.osrel .uname .cmdline .initrd .linux ' "the sections that objdump sees"
section() { objcopy --dump-section "$1=$work/section" "$work/uki.efi" "$work/rest" && cat "$work/section"; }
equal "$(section .osrel)" "$(cat "$work/rootfs/etc/os-release")"
equal "$(section .uname)" 6.1.0-10-amd64
equal "$(section .cmdline)" "root=PARTUUID=${id,,} quiet console=tty0 console=ttyS0,115200"
equal "$(section .initrd | tr '\0' '-')" 'microcode---an initrd---'
section .linux | head -c "$(stat -c %s "$work/rootfs/boot/vmlinuz-6.1.0-10-amd64")" >"$work/taken"
same "$work/taken" "$work/rootfs/boot/vmlinuz-6.1.0-10-amd64"
contains "$(sbverify --list "$work/uki.efi" 2>&1)" 'No signature table present'
bootctl=$("$here/fetch-unpacked" systemd-boot usr/bin/bootctl "$1")
if may_mount; then
  "${with_own_mounts[@]}" sh -c 'mount -t tmpfs none "$1" && mkdir -p "$1/EFI/Linux" && cp "$2" "$1/EFI/Linux" &&
    SYSTEMD_RELAX_ESP_CHECKS=1 "$3" --esp-path="$1" --json=short list' sh "$work/empty" "$work/uki.efi" "$bootctl" \
    >"$work/list"
  contains "$(cat "$work/list")" '"title":"Debian of the test"'
  contains "$(cat "$work/list")" "\"options\":\"root=PARTUUID=${id,,} quiet console=tty0 console=ttyS0,115200\""
fi

# Neither kernel nor initrd is copied, and no byte of an initrd is read before somebody asks for it: with none of it in
# the page cache when a server starts, there is none when the server is ready and has answered its first request.
noise 60000000 >"$work/rootfs/boot/big.img"
resident() { fincore --bytes --noheadings --output RES "$work/rootfs/boot/big.img" | tr -d ' '; }
for image in "--fs=fat32 --boot=uki" "--fs=fat32 --boot=systemd-boot" "--fs=fat32 --boot=uefi-signed" \
  "--fs=ext4 --esp=128M --boot=uki" "--fs=iso --boot=isolinux,uki --append=root=/dev/sr0"; do
  # A tmpfs has its files in memory.
  if [[ $(stat -f -c %T "$work") != tmpfs ]]; then
    dd if="$work/rootfs/boot/big.img" of="$work/rootfs/boot/big.img" oflag=nocache conv=notrunc,fdatasync count=0 status=none
    equal "$(resident)" 0 "bytes of the initrd in the page cache"
  fi
  # shellcheck disable=SC2086  # words
  start_server "$work/rootfs" $image --table=hybrid --initrd=boot/big.img -U "$work/sock"
  nbdsh --uri "$uri" -c 'h.pread(4096, 0)'
  [[ $(stat -f -c %T "$work") == tmpfs ]] || equal "$(resident)" 0 "bytes of the initrd that were read ($image)"
  read_bytes=$(awk '/^rchar/ {print $2}' "/proc/$server_pid/io")
  ((read_bytes < 30000000)) || fail "the server has read $read_bytes bytes ($image)"
  nbdcopy "$uri" null:
  (($(resident) > 50000000)) || fail "$image does not show the initrd"
  stop_server
done

# The signed chain: the pieces are what Debian has signed, and the kernel has to be signed, too.
dump --partition "$work/esp,fs=fat32,type=esp" --partition "$work/rootfs,fs=ext4" --boot=uefi-signed
for pair in bootx64.efi=/usr/lib/shim/shimx64.efi.signed mmx64.efi=/usr/lib/shim/mmx64.efi.signed \
  grubx64.efi=/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed; do
  take 1M "efi/boot/${pair%%=*}" "$work/taken"
  same "$work/taken" "${pair#*=}"
  contains "$(sbverify --list "$work/taken")" '^signature 1'
done
! file_in 1M efi/boot/fbx64.efi >/dev/null 2>&1 || fail "there is a fallback loader"
id=$(sfdisk --part-uuid "$work/disk.img" 2)
equal "$(file_in 1M efi/debian/grub.cfg)" "set default=0
set timeout=0
menuentry 'linux' {
  linux '/boot/vmlinuz-6.1.0-10-amd64' 'root=PARTUUID=${id,,}' 'console=tty0' 'console=ttyS0,115200'
  initrd '/boot/initrd.img-6.1.0-10-amd64'
}"

# A loader of the user's own has the name of its machine.
executable "$work/arm.efi" AA64
dump "$work/empty" --fs=fat16 --boot=uefi --loader="$work/arm.efi"
take 0 EFI/BOOT/BOOTAA64.EFI "$work/taken"
same "$work/taken" "$work/arm.efi"
cp "$work/uki.efi" "$work/esp/efi/boot/bootx64.efi"
dump "$work/esp" --fs=fat32 --table=mbr --boot=uefi
equal "$(sfdisk --part-type "$work/disk.img" 1)" ef "the type of the ESP"
dump "$work/esp" "$work/rootfs" --fs=fat32 --boot=uki
contains "$(cat "$work/err")" 'efi/boot/bootx64.efi.*uki'

# BIOS and UEFI on one disk.
dump --table=mbr --partition "$work/rootfs,fs=fat32" --boot=syslinux,systemd-boot
head -c 440 "$work/disk.img" >"$work/code"
same "$work/code" /usr/lib/syslinux/mbr/mbr.bin

# An ISO image: the image that UEFI starts is a file of it, stands last, and is a partition and an entry of the
# catalogue, whose count is 0 for one that is too long to say.
iso_efi() {
  xorriso -indev "stdio:$work/disk.img" -report_el_torito plain >"$work/report" 2>&1
  contains "$(cat "$work/report")" "^El Torito boot img : +$1 +UEFI +y +none +0x0000 +0x00 +$3 "
  contains "$(cat "$work/report")" "^El Torito img path : +$1 +/boot/efi.img"
  read -r start sectors <<<"$(sfdisk --json "$work/disk.img" | python3 -c "import json, sys
efi = json.load(sys.stdin)['partitiontable']['partitions'][$2]
assert efi['type'] in ('ef', 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B')
print(efi['start'], efi['size'])")"
  dd if="$work/disk.img" of="$work/part" bs=512 skip="$start" count="$sectors" conv=sparse status=none
  fsck.fat -n "$work/part" >"$work/check" || fail "fsck.fat: $(cat "$work/check")"
  isoinfo -R -i "$work/disk.img" -x /boot/efi.img | cmp - "$work/part" || fail "/boot/efi.img is not the partition"
  equal $(((start + sectors) / 4)) "$(isoinfo -d -i "$work/disk.img" | awk '/^Volume size is/ {print $4}')" \
    "the end of the volume"
}
dump "$work/rootfs" --fs=iso --boot=isolinux,systemd-boot --append=root=/dev/sr0
iso_efi 2 -1 '[1-9][0-9]*'
contains "$(sfdisk --json "$work/disk.img")" '"bootable": true'
mcopy -n -i "$work/part" ::boot/vmlinuz-6.1.0-10-amd64 - | cmp - "$work/rootfs/boot/vmlinuz-6.1.0-10-amd64"
dump "$work/esp" --fs=iso --boot=uefi
iso_efi 1 0 '[1-9][0-9]*'
mcopy -n -i "$work/part" ::efi/boot/bootx64.efi - | cmp - "$work/esp/efi/boot/bootx64.efi"
# What FAT does not have is in the ISO tree, and not in the image that UEFI starts.
ln -s bootx64.efi "$work/esp/efi/boot/link"
contains "$("$MKVIRTFS" inspect "$work/esp" --fs=iso --boot=uefi 2>&1)" \
  'UEFI does not see an entry of the ISO image, which is neither a file nor a directory: efi/boot/link$'
rm "$work/esp/efi/boot/link"
dump "$work/rootfs" --fs=iso --boot=uki --initrd=boot/big.img --append=root=/dev/sr0
iso_efi 1 0 0
dump "$work/rootfs" --fs=iso --boot=uefi-signed --append=root=/dev/sr0
iso_efi 1 0 '[1-9][0-9]*'
mcopy -n -i "$work/part" ::EFI/debian/grub.cfg "$work/taken"
isoinfo -R -i "$work/disk.img" -x /EFI/debian/grub.cfg | cmp - "$work/taken"
contains "$(cat "$work/taken")" "^search --no-floppy --set=root --file '/boot/vmlinuz-6.1.0-10-amd64'$"

# A hybrid has a GPT, too, whose one partition that image is, and of which no tool complains.
for loaders in uki isolinux,uki; do
  dump "$work/rootfs" --fs=iso --table=hybrid --boot=$loaders --initrd=boot/big.img --append=root=/dev/sr0
  number=1 entry=0x00 area='MBR protective-msdos-label cyl-align-off GPT'
  [[ $loaders == uki ]] || number=2 entry=0x80 area='MBR isohybrid cyl-align-off GPT'
  iso_efi $number 0 0
  contains "$(sgdisk -v "$work/disk.img")" '^No problems found'
  contains "$(sgdisk -p "$work/disk.img")" "^ +1 +$start +$((start + sectors - 1)) .* EF00"
  contains "$(sfdisk --verify "$work/disk.img" 2>&1)" '^No errors detected'
  contains "$(fdisk -l -o Start,Sectors,Type "$work/disk.img")" "^ *$start +$sectors EFI System"
  contains "$(parted -sm "$work/disk.img" unit s print 2>&1)" "^1:${start}s:$((start + sectors - 1))s:${sectors}s:.*esp"
  contains "$(blkid -p "$work/disk.img")" 'TYPE="iso9660".* PTTYPE="gpt"'
  xorriso -abort_on SORRY -indev "stdio:$work/disk.img" -check_media -- -report_system_area plain >"$work/report" 2>&1 ||
    fail "xorriso: $(cat "$work/report")"
  contains "$(cat "$work/report")" "^System area summary: $area\$"
  contains "$(cat "$work/report")" "^MBR partition +: +1 +0x00 +0xee +1 +$((start - 1))\$"
  contains "$(cat "$work/report")" "^MBR partition +: +2 +$entry +0xef +$start +$sectors\$"
  contains "$(cat "$work/report")" "^GPT start and size : +1 +$start +$sectors\$"
  contains "$(cat "$work/report")" '^GPT partition path : +1 +/boot/efi.img$'
done

# Mistakes.
no() { "$MKVIRTFS" dump -o "$work/no.img" "$@"; }
fails 1 '--boot=uki: UEFI starts what lies on FAT, not on ext4 \(try --fs=fat32 or --esp=256M\)' \
  no "$work/rootfs" --fs=ext4 --boot=uki
fails 2 "--boot=uki,uefi-signed: UEFI starts one file by its name, uki's or uefi-signed's" \
  no "$work/rootfs" --fs=fat32 --boot=uki,uefi-signed
fails 1 'no source has a loader or a unified kernel image at EFI/BOOT' no "$work/rootfs" --fs=fat32 --boot=uefi
mkdir -p "$work/wrong/efi/boot"
cp "$work/arm.efi" "$work/wrong/efi/boot/bootx64.efi"
fails 1 'bootx64.efi is for arm64, and the firmware of such a machine looks for BOOTAA64.EFI' \
  no "$work/wrong" --fs=fat16 --boot=uefi
fails 1 'loader: not an executable of UEFI: it does not begin with MZ' \
  no "$work/empty" --fs=fat16 --boot=uefi --loader="$work/rootfs/sbin/init"
fails 2 '--loader=.*: that is for UEFI to start' no "$work/rootfs" --fs=fat32 --boot=uki --loader="$work/arm.efi"
executable "$work/rootfs/boot/unsigned"
executable "$work/rootfs/boot/unified" 8664 0 .linux
cp "$work/arm.efi" "$work/rootfs/boot/arm"
fails 1 'boot/unsigned has no certificate table: nobody has signed it' \
  no "$work/rootfs" --fs=fat32 --boot=uefi-signed --kernel=boot/unsigned --append=root=/dev/vda
fails 1 'boot/unified is a unified kernel image and no kernel' \
  no "$work/rootfs" --fs=fat32 --boot=uki --kernel=boot/unified --append=root=/dev/vda
fails 1 'boot/arm is a kernel for arm64, and systemd-boot starts those for x86-64' \
  no "$work/rootfs" --fs=fat32 --boot=systemd-boot --kernel=boot/arm --append=root=/dev/vda
truncate -s 5G "$work/rootfs/boot/huge.img"
fails 1 'a unified kernel image ends at 4294967295 bytes' \
  no "$work/rootfs" --fs=fat32 --boot=uki --initrd=boot/huge.img --append=root=/dev/vda
rm "$work/rootfs/boot/huge.img"
fails 2 '--esp=41943040: a partition has the type esp already' \
  no --partition "$work/esp,fs=fat32,type=uefi" --esp=40M
fails 2 '--table=none: partitions need a table' no "$work/rootfs" --fs=ext4 --table=none --esp=40M
mkdir "$work/pieces.d"
fails 1 "linuxx64.efi.stub.*\(try Debian's package systemd-boot-efi or --boot-files\)" \
  no "$work/rootfs" --fs=fat32 --boot=uki --boot-files="$work/pieces.d" --append=root=/dev/vda
