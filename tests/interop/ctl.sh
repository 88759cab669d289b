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
# Right after the start nothing was written; that is no error.
equal "$(ctl diff job-1 2>"$work/stderr")" "" "changes before anybody came"
equal "$(cat "$work/stderr")" "mkvirtfs: job-1: nothing was written"
equal "$(ctl diff job-1 --json 2>"$work/stderr")" "" "changes before anybody came"

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

# What cannot be.
fails 1 'nothing was written' "$MKVIRTFS" ctl "$work/ctl" diff unknown
fails 1 'no export can have' "$MKVIRTFS" ctl "$work/ctl" snapshot job-1 ../x
# The error that a server sends is escaped once on its way to the terminal.
equal "$(ctl save job-1 -o "$work/no/"$'odd\nname' 2>&1 | grep -oE 'odd.*name')" 'odd\x0aname' "a path in an error of the server"
fails 1 'there is such an export' "$MKVIRTFS" ctl "$work/ctl" snapshot job-1 before/second
fails 1 'File exists|exists' "$MKVIRTFS" ctl "$work/ctl" save job-1 -o "$work/saved"
fails 2 'takes one name' "$MKVIRTFS" ctl "$work/ctl" diff
fails 1 'connect to' "$MKVIRTFS" ctl "$work/none" list
# Clients that speak nonsense are told so.
python3 - "$work/ctl" <<'END'
import socket, sys
for said in (b"{}\n", b"[1]\n", b"\xff\n", b'{"command":"diff","name":5}\n', b"x" * 20000, b""):
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    client.sendall(said)
    client.shutdown(socket.SHUT_WR)
    answer = client.recv(4096)
    assert b'"error"' in answer or said == b"", (said, answer)
END

# Several are answered at once: one that is idle, one that drips bytes, and one that takes an answer
# slowly delay nobody, and no SIGTERM.
python3 - "$work/ctl" "$MKVIRTFS" "$server_pid" <<'END'
import os, signal, socket, subprocess, sys, threading, time
def connect():
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    return client
idle = [connect() for _ in range(20)]
dripping = connect()
def drip():
    try:
        while True:
            dripping.send(b"x")
            time.sleep(0.1)
    except OSError:
        pass
threading.Thread(target=drip, daemon=True).start()
def ask():
    begun = time.monotonic()
    done = subprocess.run([sys.argv[2], "ctl", sys.argv[1], "stats"], capture_output=True, timeout=60)
    assert done.returncode == 0, done
    assert time.monotonic() - begun < 3, time.monotonic() - begun
time.sleep(0.5)
ask()
askers = [threading.Thread(target=ask) for _ in range(8)]
for asker in askers: asker.start()
for asker in askers: asker.join()
# The deadline: a client that never asks, or never ends, learns so after ten seconds.
begun = time.monotonic()
for client in idle[:5] + [dripping]:
    client.settimeout(20)
    answer = client.recv(4096)
    assert b"no request came within 10 seconds" in answer, answer
assert time.monotonic() - begun < 15
ask()
END
# Who may not ask reads why, whenever that is said.
if ((EUID == 0)); then
  chmod 755 "$work"
  chmod 666 "$work/ctl"
  for _ in {1..20}; do
    fails 1 'only the server.s own user may ask' setpriv --reuid=65534 --regid=65534 --clear-groups \
      "$MKVIRTFS" ctl "$work/ctl" list
  done
  setpriv --reuid=65534 --regid=65534 --clear-groups python3 - "$work/ctl" <<'END'
import socket, sys, time
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
time.sleep(0.3)  # the refusal is there before the question
client.sendall(b'{"command":"stats"}\n')
assert b"own user may ask" in client.recv(4096)
END
fi
equal "$(stat -c %F "$work/ctl")" socket
# SIGTERM, while one is idle, one drips, and one has asked and takes no answer.
python3 - "$work/ctl" "$server_pid" <<'END' &
import os, signal, socket, sys, time
def connect():
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    return client
idle, dripping, deaf = connect(), connect(), connect()
deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
deaf.sendall(b'{"command":"diff","name":"job-1"}\n')
open(sys.argv[1] + ".ready", "w").close()
try:
    while True:
        dripping.send(b"x")
        time.sleep(0.05)
except OSError:
    pass
END
until [[ -e $work/ctl.ready ]]; do sleep 0.05; done
begun=$(date +%s%N)
stop_server
(($(date +%s%N) - begun < 3000000000)) || fail "SIGTERM took long"
[[ ! -e $work/ctl ]] || fail "the control socket was left behind"

# On FAT, what is written to a free cluster is blamed on no file before it, whose slack joins it.
mkdir "$work/small"
head -c 100 /dev/zero | tr '\0' a >"$work/small/a"
start_server "$work/small" --fs=fat16 --size=64M --cluster-size=4096 --rw -e disk -U "$work/sock" --ctl="$work/ctl"
# The cluster of the only file, by a foreign eye, and the free one behind it.
nbdcopy "$uri" "$work/fat"
offset=$(python3 - "$work/fat" <<'END'
import sys
data = open(sys.argv[1], "rb").read()
print(data.index(b"a" * 100))
END
)
qemu-io -f raw "$uri" -c "write -P 5 $((offset + 4096)) 8k" -c flush >"$work/log"
equal "$(ctl diff disk | sed -E 's/^ +//; s/ +/ /g')" "$((offset + 4096)) 8192 free"
qemu-io -f raw "$uri" -c "write -P 5 $offset 4k" -c flush >"$work/log"
diff=$(ctl diff disk | sed -E 's/^ +//; s/ +/ /g')
contains "$diff" "^$offset 100 file a$"
contains "$diff" "^$((offset + 100)) 3996 file /a at 100$"
contains "$diff" "^$((offset + 4096)) 8192 free$"
equal "$(wc -l <<<"$diff")" 3 "changes: $diff"
stop_server
