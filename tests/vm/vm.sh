# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# To be sourced: builds an initrd and boots Debian's cloud kernel in QEMU with it.

# make_initrd FILE KERNEL_ROOT PLAN_FILE EXTRA_FILE...
#
# The guest's whole world: busybox, init, the manifest program, nbd-client and file system checkers with their
# libraries, and the few kernel modules. Each EXTRA_FILE is found under its base name in /.
make_initrd() {
  local out=$1 kernel_root=$2 plan=$3 here root path
  shift 3
  here=$(dirname "${BASH_SOURCE[0]}")
  root=$(mktemp -d "$out.XXXXXX")
  mkdir -p "$root"/{bin,sbin,modules}
  install -m 755 "$here/init" "$root/init"
  cp "$(command -v busybox)" "$root/bin/busybox"
  cp "$plan" "$root/plan"
  cp "$MANIFEST" "$root/bin/manifest"
  cp "$@" "$root/"

  local program library
  for program in nbd-client e2fsck resize2fs fsck.fat; do
    path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$program")
    cp -L "$path" "$root/sbin/$program"
    for library in $(ldd "$path" | grep -oE '/[^ ]+'); do
      mkdir -p "$root$(dirname "$library")"
      cp -Ln "$library" "$root$library"
    done
  done

  add_modules "$root" "$kernel_root" virtio_pci virtio_blk virtio_net nbd vfat nls_cp437 nls_ascii isofs nls_utf8 erofs \
    quota_v2
  pack_initrd "$root" "$out"
}

# make_switching_initrd FILE KERNEL_ROOT: an initrd that does nothing but mount the root that the kernel's
# command line names (root=, and rw or else read-only) and go on from there, as the one of a distribution would.
make_switching_initrd() {
  local out=$1 kernel_root=$2 root
  root=$(mktemp -d "$out.XXXXXX")
  mkdir -p "$root"/{bin,modules,dev,root}
  cp "$(command -v busybox)" "$root/bin/busybox"
  add_modules "$root" "$kernel_root" virtio_pci virtio_blk
  cat >"$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod "/modules/$module"; done </modules/order
/bin/busybox mkdir -p /proc
/bin/busybox mount -t proc proc /proc
root='' mode=ro
for word in $(/bin/busybox cat /proc/cmdline); do
  case $word in
    root=*) root=${word#root=} ;;
    rw) mode=rw ;;
  esac
done
/bin/busybox umount /proc
/bin/busybox mount -t ext4 -o "$mode" "$root" /root && exec /bin/busybox switch_root /root /sbin/init
END
  chmod 755 "$root/init"
  pack_initrd "$root" "$out"
}

# add_modules ROOT KERNEL_ROOT MODULE...: into ROOT/modules, with what they need; ROOT/modules/order has a line
# for each, in the order of loading. What is built in has no file.
add_modules() {
  local root=$1 kernel_root=$2 version module path
  shift 2
  version=$(basename "$kernel_root"/lib/modules/*)
  for module in "$@"; do
    modprobe -d "$kernel_root" -S "$version" --show-depends "$module" | awk '$1 == "insmod" {print $2}'
  done | awk '!seen[$0]++' | while read -r path; do
    cp "$path" "$root/modules/"
    case ${path##*/} in
      nbd.ko*) echo "${path##*/} nbds_max=1" ;;
      *) echo "${path##*/}" ;;
    esac
  done >"$root/modules/order"
}

# pack_initrd ROOT FILE: ROOT is gone afterwards.
pack_initrd() {
  (cd "$1" && find . -print0 | cpio --null --quiet -o -H newc) | gzip -1 >"$2"
  rm -rf "$1"
}

# boot KERNEL_ROOT INITRD LOG SECONDS QEMU-ARGUMENT...: runs until the guest powers off. Emulated,
# because a host may offer a KVM that cannot run this kernel; without the check of the timer, which a
# busy host fails.
boot() {
  local kernel_root=$1 initrd=$2 log=$3 seconds=$4
  shift 4
  timeout --kill-after=5 "$seconds" qemu-system-x86_64 -accel tcg -cpu max -m 768 -nodefaults \
    -no-user-config -display none -no-reboot -serial "file:$log" \
    -kernel "$kernel_root"/boot/vmlinuz-* -initrd "$initrd" \
    -append 'console=ttyS0 loglevel=4 panic=-1 no_timer_check root=/dev/vda rw' \
    -netdev user,id=net,restrict=off -device virtio-net-pci,netdev=net,romfile= "$@" </dev/null
}
