#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What an operator sees and says: statistics, who may connect, how long a handshake may take.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"

# Statistics at a signal, of a client that is connected and one that is gone, and at the end.
start_server "$work/tree" --fs=ext2 -U "$work/sock" -e disk --stats=json
python3 - "$uri" "$server_pid" "$server_log" <<'END_OF_PYTHON'
import json, os, signal, sys, time, nbd

uri, pid, log = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def statistics(count):
    os.kill(pid, signal.SIGUSR1)
    deadline = time.time() + 10
    while time.time() < deadline:
        with open(log) as file:
            lines = file.read().splitlines()
        if len(lines) == count:
            return json.loads(lines[-1])
        time.sleep(0.01)
    sys.exit("no statistics")

assert statistics(1)["exports"] == []
first = nbd.NBD()
first.connect_uri(uri)
for i in range(100):
    first.pread(4096, i * 4096)
first.shutdown()
second = nbd.NBD()
second.add_meta_context("base:allocation")
second.set_strict_mode(0)
second.connect_uri(uri)
second.pread(65536, 0)
second.block_status(1 << 20, 0, lambda *_: 0)
try:
    second.pread(512, second.get_size())
except nbd.Error:
    pass
seen = statistics(2)
assert seen["connections_total"] == 2, seen
(disk,) = seen["exports"]
assert disk["name"] == "disk" and disk["connections_total"] == 2, disk
reads = disk["commands"]["read"]
assert reads["requests"] == 102 and reads["bytes"] == 100 * 4096 + 65536, reads
assert reads["errors"] == {"EINVAL": 1}, reads
assert sum(reads["latency"]) == 102, reads
assert disk["commands"]["block_status"]["requests"] == 1, disk
second.shutdown()
END_OF_PYTHON
stop_server
equal "$(wc -l <"$server_log")" 3 "lines of statistics"
contains "$(tail -n 1 "$server_log")" '^\{"connections_open":0,"connections_total":2,'

# As text, also when nobody asked for it at the end.
start_server "$work/tree" --fs=ext2 -U "$work/sock"
nbdinfo --size "$uri" >"$work/size"
kill -USR1 "$server_pid"
for _ in {1..500}; do [[ -s $server_log ]] && break; sleep 0.01; done
contains "$(cat "$server_log")" '^statistics: [01] connected, 1 in all, 0 turned away$'
contains "$(cat "$server_log")" '^export ""'
stop_server
equal "$(grep -c ^statistics "$server_log")" 1 "statistics told"

# Who is let in.
start_server "$work/tree" --fs=ext2 -U "$work/sock" --listen=127.0.0.1:0 \
  --allow="unix:uid=$(id -u)" --deny=any
nbdinfo --size "nbd+unix://?socket=$work/sock" >"$work/size"
tcp=$(grep '^nbd:' "${server_log%.log}")
! nbdinfo --size "$tcp" >"$work/size" 2>&1 || fail "a denied client was let in"
stop_server
contains "$(cat "$server_log")" 'turned away: 127.0.0.1 may not connect'
start_server "$work/tree" --fs=ext2 -U "$work/sock" --listen=127.0.0.1:0 --deny=unix,10.0.0.0/8,::/0
! nbdinfo --size "nbd+unix://?socket=$work/sock" >"$work/size" 2>&1 || fail "a denied client was let in"
nbdinfo --size "$(grep '^nbd:' "${server_log%.log}")" >"$work/size"
stop_server
fails 2 'any, ADDRESS' "$MKVIRTFS" serve "$work/tree" --deny=everybody
fails 2 'add --deny=any' "$MKVIRTFS" serve "$work/tree" --allow=127.0.0.1

# How long a handshake may take.
start_server "$work/tree" --fs=ext2 -U "$work/sock" --timeout=1
python3 - "$work/sock" <<'END_OF_PYTHON'
import socket, sys, time
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.settimeout(20)
begun = time.monotonic()
assert client.recv(100)[:8] == b"NBDMAGIC"
assert client.recv(100) == b""
assert 0.5 < time.monotonic() - begun < 9, "another deadline"
END_OF_PYTHON
stop_server
