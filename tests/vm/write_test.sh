#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# write_test.sh KERNEL-DIR: Linux's own NBD client writes through four connections at once to an
# overlay that outlives its server: the file system is whole afterwards, seen from either side, and
# all of it is there again when the server was stopped and started.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/../vm/vm.sh"

kernel=$("$here/../vm/fetch-kernel" "$1")
"$here/torture_tree.py" "$work/tree" --block 2048
"$MANIFEST" "$work/tree" >"$work/source"
serve() { start_server "$work/tree" --fs=ext4 --journal --free=64M --overlay="$work/overlay" "$@"; }

serve -p 0
port=$(grep -oE ':[0-9]+' <<<"$uri" | tail -n 1)
echo "write_over_nbd ${port#:} ext4 source" >"$work/plan"

# The kernel has no more queues than processors, and uses one connection for each.
make_initrd "$work/initrd" "$kernel" "$work/plan" "$work/source"
boot "$kernel" "$work/initrd" "$work/console" 480 -smp 4 || fail "QEMU: exit status $?"
tr -d '\r' <"$work/console" | grep -a '^VM: ' | tee "$work/verdicts" || true
equal "$(grep -c '^VM: ok' "$work/verdicts")" 2 "$(cat "$work/console")
steps that went well"

# What the guest wrote is there for others, also for those who come to the next server.
nbdcopy --connections=4 "$uri" "$work/before"
stop_server
[[ ! -s $server_log ]] || fail "it complained: $(cat "$server_log")"
equal "$("$MKVIRTFS" overlay check "$work/overlay")" sound
serve -U "$work/sock"
nbdcopy --connections=4 "$uri" "$work/written"
same "$work/before" "$work/written"
e2fsck -fn "$work/written" >"$work/e2fsck" 2>&1 || fail "after the guest: $(cat "$work/e2fsck")"
contains "$(debugfs -R 'ls -l /wide/made/in/the/guest' "$work/written" 2>&1)" ' d7$'
contains "$(debugfs -R 'cat /sizes/4097' "$work/written" 2>&1 | tail -n 1)" 'appended$'

# The archive had whole seconds, and the guest no times for directories that it still filled.
of_archive() { grep -E '^(names|sizes)[/ ]' | perl -pe 's/(mtime=-?\d+)\.\d+/$1/; s/mtime=\S+// if / mode=04/' | sort; }
of_archive <"$work/source" >"$work/expected"
(($(wc -l <"$work/expected") > 50)) || fail "most of the archive is gone: $(wc -l <"$work/expected")"
"$here/debugfs_manifest.py" "$work/written" | sed -n 's,^untarred/,,p' | of_archive >"$work/found"
same "$work/expected" "$work/found"

# The source is what it was.
"$MANIFEST" "$work/tree" >"$work/after"
same "$work/source" "$work/after"
stop_server
