#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A running server is asked what a client changed, keeps it, begins anew and branches off.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"
export TMPDIR=$work

small_tree "$work/tree"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 -o "$work/image"
start_server "$work/tree" --fs=ext4 --clone='job-*' --clone-max=4 -U "$work/sock" --ctl="$work/ctl"
ctl() { "$MKVIRTFS" ctl "$work/ctl" "$@"; }
job="nbd+unix:///job-1?socket=$work/sock"
equal "$(ctl list)" "" "overlays before anybody came"

# Where a file lies, by a foreign eye; its first block and a block of the inode tables are written.
block=$(debugfs -R 'bmap noise 0' "$work/image" 2>/dev/null)
table=$(dumpe2fs "$work/image" 2>/dev/null | sed -n 's/.*Inode table at \([0-9]*\).*/\1/p' | head -n 1)
qemu-io -f raw "$job" -c "write -P 7 $((block * 4096)) 8k" -c "write -P 9 $((table * 4096)) 4k" -c flush >"$work/log"
diff=$(ctl diff job-1)
contains "$diff" "^ *$((block * 4096)) +8192 +file noise$"
contains "$diff" "^ *$((table * 4096)) +4096 +inode table"
equal "$(wc -l <<<"$diff")" 2 "changes: $diff"
contains "$(ctl diff job-1 --files)" '^ *8192  file noise$'
equal "$(ctl diff job-1 --files --json | head -n 1)" '{"file":"noise","changed_bytes":8192}'
contains "$(ctl list)" '^ *12288  job-1$'
contains "$(ctl stats)" '^\{.*job-1'

# What was saved is the disk, and a snapshot stays as it was while its parent goes on.
ctl save job-1 -o "$work/saved"
nbdcopy "$job" "$work/copied"
same "$work/saved" "$work/copied"
ctl snapshot job-1 before/second
qemu-io -f raw "$job" -c "write -P 8 $((block * 4096)) 4k" >"$work/log"
nbdcopy "nbd+unix:///before/second?socket=$work/sock" "$work/second"
same "$work/saved" "$work/second"
equal "$(ctl diff job-1 | wc -l)" 1 "changes since the snapshot"
qemu-io -f raw "$job" -c "read -P 8 $((block * 4096)) 4k" -c "read -P 7 $((block * 4096 + 4096)) 4k" >"$work/log"

# A new beginning, when nobody has it open.
python3 - "$job" "$MKVIRTFS" "$work/ctl" <<'END'
import subprocess, sys, nbd
handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
refused = subprocess.run([sys.argv[2], "ctl", sys.argv[3], "discard", "job-1"], capture_output=True)
assert refused.returncode == 1 and b"a client has it open" in refused.stderr, refused
handle.shutdown()
END
deadline=$((SECONDS + 10))
until ctl discard job-1 2>"$work/stderr"; do ((SECONDS < deadline)) || fail "$(cat "$work/stderr")"; sleep 0.1; done
nbdcopy "$job" "$work/anew"
same "$work/anew" "$work/image"

# What can not be.
fails 1 'nothing was written' "$MKVIRTFS" ctl "$work/ctl" diff unknown
fails 1 'no export can have' "$MKVIRTFS" ctl "$work/ctl" snapshot job-1 ../x
fails 1 'there is such an export' "$MKVIRTFS" ctl "$work/ctl" snapshot job-1 before/second
fails 1 'File exists|exists' "$MKVIRTFS" ctl "$work/ctl" save job-1 -o "$work/saved"
fails 2 'takes 1 names' "$MKVIRTFS" ctl "$work/ctl" diff
fails 1 'connect to' "$MKVIRTFS" ctl "$work/none" list
# Clients that speak nonsense, or nothing, hold up nobody for long.
python3 - "$work/ctl" <<'END'
import socket, sys
for said in (b"{}\n", b"[1]\n", b"\xff\n", b'{"command":"diff","name":5}\n', b"x" * 20000, b""):
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    try:
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(4096)
    except OSError:
        answer = b""
    assert answer == b"" or b'"error"' in answer, (said, answer)
END
equal "$(stat -c %F "$work/ctl")" socket
stop_server
[[ ! -e $work/ctl ]] || fail "the control socket was left behind"
