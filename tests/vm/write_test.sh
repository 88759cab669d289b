#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# write_test.sh KERNEL-DIR EXAMPLES-DIR: Linux's own NBD client writes through four connections at once to
# the copy-on-write example, and the file system is whole afterwards, seen from either side.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/../vm/vm.sh"

kernel=$("$here/../vm/fetch-kernel" "$1")
"$here/torture_tree.py" "$work/tree" --block 2048
"$MANIFEST" "$work/tree" >"$work/source"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 --journal -o "$work/image" >/dev/null
sha256sum "$work/image" >"$work/sum"

"$2/build/copy_on_write" "$work/image" 0 >"$work/overlay" 2>"$work/overlay.log" </dev/null &
server_pid=$!
server_pids+=("$server_pid")
until [[ -s $work/overlay ]]; do
  kill -0 $server_pid || fail "copy_on_write: $(cat "$work/overlay.log")"
  sleep 0.02
done
uri=$(cat "$work/overlay")
port=$(grep -oE ':[0-9]+' <<<"$uri" | tail -n 1)
echo "write_over_nbd ${port#:} ext4 source" >"$work/plan"

# The kernel has no more queues than processors, and uses one connection for each.
make_initrd "$work/initrd" "$kernel" "$work/plan" "$work/source"
boot "$kernel" "$work/initrd" "$work/console" 480 -smp 4 || fail "QEMU: exit status $?"
tr -d '\r' <"$work/console" | grep -a '^VM: ' | tee "$work/verdicts" || true
equal "$(grep -c '^VM: ok' "$work/verdicts")" 2 "$(cat "$work/console")
steps that went well"

# What the guest wrote is there for others, and the file below is what it was.
nbdcopy --connections=4 "$uri" "$work/written"
e2fsck -fn "$work/written" >"$work/e2fsck" 2>&1 || fail "after the guest: $(cat "$work/e2fsck")"
contains "$(debugfs -R 'ls -l /wide/made/in/the/guest' "$work/written" 2>&1)" ' d7$'
contains "$(debugfs -R 'cat /sizes/4097' "$work/written" 2>&1 | tail -n 1)" 'appended$'
sha256sum --check --status "$work/sum" || fail "the file below was written"
kill -TERM $server_pid
wait $server_pid || fail "copy_on_write did not end well"
[[ ! -s $work/overlay.log ]] || fail "it complained: $(cat "$work/overlay.log")"
