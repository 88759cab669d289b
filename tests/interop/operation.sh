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
try:
    second.pread(512, second.get_size())
except nbd.Error:
    pass
# Its answer says that the server has counted all that was answered before.
second.block_status(1 << 20, 0, lambda *_: 0)
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
contains "$(cat "$server_log")" '^statistics: [01] connected, 1 in all, 0 refused$'
contains "$(cat "$server_log")" '^export ""'
stop_server
equal "$(grep -c ^statistics "$server_log")" 1 "statistics told"

# Which clients are let in.
start_server "$work/tree" --fs=ext2 -U "$work/sock" --listen=127.0.0.1:0 \
  --allow="unix:uid=$(id -u)" --deny=any
nbdinfo --size "nbd+unix://?socket=$work/sock" >"$work/size"
tcp=$(grep '^nbd:' "${server_log%.log}")
! nbdinfo --size "$tcp" >"$work/size" 2>&1 || fail "a denied client was let in"
stop_server
contains "$(cat "$server_log")" '^mkvirtfs: a client was refused: 127.0.0.1:[0-9]+ may not connect$'
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

# Who comes and goes.
start_server "$work/tree" --fs=ext2 -U "$work/sock" --listen=127.0.0.1:0 -e disk --log-level=debug
nbdinfo --size "$(grep '^nbd:' "${server_log%.log}")" >"$work/size"
! nbdinfo --size "nbd+unix:///other?socket=$work/sock" >"$work/size" 2>&1 || fail "an unknown export was opened"
stop_server
contains "$(cat "$server_log")" \
  '^mkvirtfs: debug: client 1 \(127\.0\.0\.1:[0-9]+, export "disk"\): connected$'
contains "$(cat "$server_log")" \
  '^mkvirtfs: debug: client 1 \(127\.0\.0\.1:[0-9]+, export "disk"\): gone after [0-9.]+ s'
contains "$(cat "$server_log")" \
  "^mkvirtfs: client 2 \\(user $(id -u) \\(process [0-9]+\\)\\): refused: there is no export \"other\"\$"
start_server "$work/tree" --fs=ext2 -U "$work/sock" --log-level=error --deny=any
! nbdinfo --size "$uri" >"$work/size" 2>&1 || fail "a denied client was let in"
stop_server
[[ ! -s $server_log ]] || fail "said at --log-level=error"
fails 2 'log-level' "$MKVIRTFS" serve "$work/tree" --log-level=loud
fails 2 'cannot be given together' "$MKVIRTFS" serve "$work/tree" --log-level=info -v

# More exports than LIST lists. Nothing of them is made before somebody comes.
exports=()
for number in {1..10000}; do exports+=("export-$number=$work/tree"); done
begun=$(date +%s%N)
start_server "${exports[@]}" --fs=ext2 -U "$work/sock"
ready_ms=$((($(date +%s%N) - begun) / 1000000))
grown_kb=$(awk '/^VmRSS/{print $2}' "/proc/$server_pid/status")
python3 - "$work/sock" <<'END_OF_PYTHON'
import sys, nbd
def count():
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.connect_unix(sys.argv[1])
    names = set()
    handle.opt_list(lambda name, description: names.add(name))
    handle.opt_abort()
    return len(names)
assert count() == 1000, count()
END_OF_PYTHON
equal "$("$MKVIRTFS" list "nbd+unix:///?socket=$work/sock" | wc -l)" 10000 "exports by LIST_HIER"
equal "$(nbdinfo --size "nbd+unix:///export-9999?socket=$work/sock")" \
  "$(nbdinfo --size "$uri")" "size of an export that LIST does not list"
stop_server
contains "$(cat "$server_log")" 'NBD_OPT_LIST ended after 1000 exports.*\(try --list-max\)'
echo "10000 exports: ready after $ready_ms ms, $grown_kb KiB in memory"
# Generous, for busy machines: it was 17 s and 490 MB. Sanitizers take more of both.
if [[ -z ${MKVIRTFS_SANITIZED-} ]]; then
  ((ready_ms < 8000)) || fail "10000 exports took $ready_ms ms"
  ((grown_kb < 70000)) || fail "10000 exports take $grown_kb KiB"
fi
start_server "${exports[@]}" --fs=ext2 -U "$work/sock" --list-max=20000
equal "$(python3 -c '
import sys, nbd
handle = nbd.NBD()
handle.set_opt_mode(True)
handle.connect_unix(sys.argv[1])
print(handle.opt_list(lambda name, description: 0))' "$work/sock")" 10000 "exports by LIST with --list-max"
stop_server
equal "$(cat "$server_log")" "" "log of a list that is whole"

# Nearly as many clients as the process may have files: those that are let in can read.
mkdir "$work/many"
for number in {1..300}; do head -c 4096 /dev/zero | tr '\0' "$(printf '\\%o' $((65 + number % 26)))" >"$work/many/$number"; done
(
  ulimit -n 256
  exec "$MKVIRTFS" serve "$work/many" --fs=ext2 --max-conn=250 -U "$work/few"
) >"$work/few.out" 2>"$work/few.log" </dev/null &
few=$!
server_pids+=("$few")
for _ in {1..500}; do [[ -s $work/few.out ]] && break; sleep 0.02; done
python3 - "$work/few" <<'END_OF_PYTHON'
import sys, nbd
clients, refused = [], 0
for _ in range(240):
    client = nbd.NBD()
    try:
        client.connect_unix(sys.argv[1])
        clients.append(client)
    except nbd.Error:
        refused += 1
assert refused > 0 and len(clients) > 100, (refused, len(clients))
size = clients[0].get_size()
errors = 0
for index, client in enumerate(clients):
    for step in range(3):
        try:
            client.pread(4096, (index * 3 + step) * 4096 % (size - 4096))
        except nbd.Error:
            errors += 1
assert errors == 0, errors
print(f"{len(clients)} clients, {refused} refused, no error")
END_OF_PYTHON
kill -TERM "$few"
wait "$few" || fail "exit status of the server with few files: $?"
server_pids=("${server_pids[@]/$few/}")
# shellcheck disable=SC2206  # drops the empty word
server_pids=(${server_pids[@]})
contains "$(cat "$work/few.log")" 'a client was refused: .*files that the process may have open \(ulimit -n\)'
