# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# To be sourced after vm.sh: sources of disks that boot by themselves.

# make_booting_initrd FILE KERNEL_ROOT: an initrd that mounts the partition which root=PARTUUID= names, by the ids
# that the disk's own table has, or the disk itself, when its volume has the id of root=UUID=. It prints a line of a
# file there, and powers off.
make_booting_initrd() {
  local out=$1 kernel_root=$2 root
  root=$(mktemp -d "$out.XXXXXX")
  mkdir -p "$root"/{bin,modules,dev,proc,root}
  cp "$(command -v busybox)" "$root/bin/busybox"
  add_modules "$root" "$kernel_root" virtio_pci virtio_blk vfat nls_cp437 nls_ascii nls_utf8 ext4
  cat >"$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
while read -r module; do insmod "/modules/$module"; done </modules/order
for word in $(cat /proc/cmdline); do
  case $word in
    root=PARTUUID=*) wanted=${word#root=PARTUUID=} ;;
    root=UUID=*) wanted=${word#root=UUID=} ;;
  esac
done
bytes() { dd if=/dev/vda bs=1 skip="$1" count="$2" 2>/dev/null | od -An -v -tx1 | tr -d ' \n'; }
# Fields that are little-endian, as they are printed.
turned() {
  text=$1 out=
  while [ "$text" ]; do out=${text%"${text#??}"}$out; text=${text#??}; done
  echo "$out"
}
[ "$wanted" != none ] || echo 'BOOTED: no root PARTUUID=none' >/dev/console
sector=512
[ "$(bytes 4096 8)" != 4546492050415254 ] || sector=4096
for number in '' 1 2 3 4; do
  if [ "$number" = '' ]; then
    id=
    [ "$(findfs "UUID=$wanted")" != /dev/vda ] || id=$wanted
  elif [ "$(bytes $sector 8)" = 4546492050415254 ]; then
    at=$((2 * sector + 128 * (number - 1) + 16))
    id=$(turned "$(bytes $at 4)")-$(turned "$(bytes $((at + 4)) 2)")-$(turned "$(bytes $((at + 6)) 2)")
    id=$id-$(bytes $((at + 8)) 2)-$(bytes $((at + 10)) 6)
  else
    id=$(turned "$(bytes 440 4)")-0$number
  fi
  [ "$id" = "$wanted" ] || continue
  for type in vfat ext4; do mount -t $type -o ro "/dev/vda$number" /root 2>/dev/null && break; done
  echo "BOOTED: $(cat /root/marker) $type $wanted" >/dev/console
done
sleep 1
poweroff -f
END
  chmod 755 "$root/init"
  pack_initrd "$root" "$out"
}

# make_tree: a source with Debian's kernel, that initrd and a marker, and no configuration.
make_tree() {
  local kernel_root version
  kernel_root=$("$here/../vm/fetch-kernel" "$1")
  version=$(basename "$kernel_root"/lib/modules/*)
  mkdir -p "$work/tree/boot"
  cp "$kernel_root/boot/vmlinuz-$version" "$work/tree/boot/"
  make_booting_initrd "$work/tree/boot/initrd.img-$version" "$kernel_root"
  echo "marker-$RANDOM$RANDOM" >"$work/tree/marker"
}
