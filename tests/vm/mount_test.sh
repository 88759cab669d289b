#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_test.sh KERNEL-DIR: a kernel that is not this machine's mounts what mkvirtfs serves, over
# virtio and over its own NBD client, finds the source in it, and writes to it.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/../vm/vm.sh"

kernel=$("$here/../vm/fetch-kernel" "$1")
"$here/torture_tree.py" "$work/tree" --block 2048
"$MANIFEST" "$work/tree" >"$work/source"

drives=()
plan=$work/plan
# drive STEP FS OPTIONS...: serves the tree to the guest's next disk (vda, vdb...).
drive() {
  local step=$1 fs=$2 letters=abcdefghij extra=readonly=on
  shift 2
  local letter=${letters:$((${#drives[@]} / 2)):1}
  start_server "$work/tree" --fs="$fs" -U "$work/$letter" "$@"
  # The guest's writes go to a temporary file of QEMU's.
  [[ $step == read_only ]] || extra=snapshot=on
  drives+=(-drive "file=$uri,format=raw,if=virtio,$extra")
  echo "$step vd$letter $fs source" >>"$plan"
}
drive read_only ext2
drive read_only ext3
drive read_only ext4
drive read_only ext4 --block-size=2048 --features=^metadata_csum
start_server "$work/tree" --fs=ext4 -p 0
port=$(grep -oE ':[0-9]+' <<<"$uri" | tail -n 1)
echo "over_nbd ${port#:} ext4 source" >>"$plan"
drive read_write ext2
drive read_write ext3
drive read_write ext4
drive read_write ext4 --features=quota,project,orphan_file,metadata_csum_seed
drive read_write ext4 --features=^extent,^64bit,^flex_bg --defaults=0.1
drive read_write ext4 --no-journal

make_initrd "$work/initrd" "$kernel" "$plan" "$work/source"
boot "$kernel" "$work/initrd" "$work/console" 480 "${drives[@]}" || fail "QEMU: exit status $?"
tr -d '\r' <"$work/console" | grep -a '^VM: ' | tee "$work/verdicts" || true
equal "$(grep -c '^VM: ok' "$work/verdicts")" $(($(wc -l <"$plan") + 1)) "$(cat "$work/console")
steps that went well"
equal "$(tail -n 1 "$work/verdicts")" 'VM: end'
((${#server_pids[@]} == $(wc -l <"$plan"))) && kill -0 "${server_pids[@]}" || fail "a server ended"
