#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# erofs_test.sh KERNEL-DIR: a kernel that is not this machine's mounts EROFS that mkvirtfs serves, over virtio
# and over its own NBD client, and finds the source in it.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/../vm/vm.sh"

kernel=$("$here/../vm/fetch-kernel" "$1")
# An emulated machine reads the holes of a file of 6 GiB for minutes: this one has its own.
"$here/torture_tree.py" "$work/tree" --block 4096
truncate -s 100M "$work/tree/sparse/6-gib"
"$MANIFEST" "$work/tree" >"$work/source"

drives=()
plan=$work/plan
# drive OPTIONS...: serves the tree to the guest's next disk (vda, vdb...).
drive() {
  local letters=abcdefghij
  local letter=${letters:$((${#drives[@]} / 2)):1}
  start_server "$work/tree" --fs=erofs -U "$work/$letter" "$@"
  drives+=(-drive "file=$uri,format=raw,if=virtio,readonly=on")
  echo "read_only vd$letter erofs source" >>"$plan"
}
drive
drive --tail-packing
drive --tail-packing --dedupe
start_server "$work/tree" --fs=erofs -p 0
port=$(grep -oE ':[0-9]+' <<<"$uri" | tail -n 1)
echo "over_nbd ${port#:} erofs source" >>"$plan"

make_initrd "$work/initrd" "$kernel" "$plan" "$work/source"
boot "$kernel" "$work/initrd" "$work/console" 480 "${drives[@]}" || fail "QEMU: exit status $?"
tr -d '\r' <"$work/console" | grep -a '^VM: ' | tee "$work/verdicts" || true
equal "$(grep -c '^VM: ok' "$work/verdicts")" $(($(wc -l <"$plan") + 1)) "$(cat "$work/console")
steps that went well"
equal "$(tail -n 1 "$work/verdicts")" 'VM: end'
