# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# To be sourced after vm.sh: sources of disks that boot by themselves, and machines that boot them.

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

# start_machine SECONDS PATTERN QEMU-ARGUMENT...: ends once the console has a line that matches. Firmware is UEFI, with
# Microsoft's keys where $keys is "ms", and a BIOS where it is "bios". A machine that got less than half of a processor for
# so long was starved by a busy host, and starts once more.
keys=none
start_machine() {
  local seconds=$1 used
  count_children
  used=$children_seconds
  ! run_machine "$@" || return 0
  count_children
  used=$((children_seconds - used))
  if ((used < seconds / 2)); then
    echo "the machine got $used s of a processor in $seconds s"
    ! run_machine "$@" || return 0
  fi
  fail "no '$2' ($(cat "$work/qemu.err")) on the console:
$(tail -n 60 "$work/text")"
}
# Sets $children_seconds to the time that all ended children of this shell have had, which a subshell does not know.
count_children() {
  times >"$work/times"
  children_seconds=$(sed -n '2s/[ms]/ /gp' "$work/times" | awk '{print int(60 * $1 + $2 + 60 * $3 + $4)}')
}
run_machine() {
  local seconds=$1 pattern=$2 pid deadline code=/usr/share/OVMF/OVMF_CODE_4M.fd vars=/usr/share/OVMF/OVMF_VARS_4M.fd
  local machine=(-machine q35)
  shift 2
  if [[ $keys == ms ]]; then
    code=/usr/share/OVMF/OVMF_CODE_4M.ms.fd vars=/usr/share/OVMF/OVMF_VARS_4M.ms.fd
    machine=(-machine "q35,smm=on" -global "driver=cfi.pflash01,property=secure,value=on")
  fi
  cp "$vars" "$work/vars.fd"
  local firmware=(-drive "if=pflash,format=raw,readonly=on,file=$code" -drive "if=pflash,format=raw,file=$work/vars.fd")
  [[ $keys != bios ]] || firmware=(-vga std)
  timeout --kill-after=5 "$seconds" qemu-system-x86_64 -accel tcg -cpu max -m 768 "${machine[@]}" -nodefaults \
    -no-user-config -display none -no-reboot -serial "file:$work/console" -net none \
    "${firmware[@]}" "$@" </dev/null 2>"$work/qemu.err" &
  pid=$!
  deadline=$((SECONDS + seconds))
  while ((SECONDS < deadline)) && kill -0 $pid 2>/dev/null; do
    ! seen "$pattern" || break
    sleep 0.5
  done
  kill $pid 2>/dev/null || true
  wait $pid 2>/dev/null || true
  seen "$pattern"
}
seen() {
  [[ -e $work/console ]] || return 1
  tr -d '\r\0' <"$work/console" | sed 's/\x1b\[[0-9;=]*[a-zA-Z]//g' >"$work/text"
  grep -qE -- "$1" "$work/text"
}
