#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# How a server begins and ends: ready when it says so, private by default, gone without a trace.
# shellcheck source-path=SCRIPTDIR
# shellcheck disable=SC2016  # --run's command has its $uri from mkvirtfs
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
serve=("$MKVIRTFS" serve "$work/tree" --fs=ext4)

# --run: the command has $uri, its exit status becomes ours, and the server ends with it.
contains "$("${serve[@]}" --run 'nbdinfo --size "$uri"')" '^[0-9]+$'
status=0
"${serve[@]}" --run 'exit 42' || status=$?
equal "$status" 42 "exit status of --run"
"${serve[@]}" --run 'echo "$uri" >'"$work/uri"
socket=$(socket_of "$(cat "$work/uri")")
[[ ! -e $socket ]] || fail "the private socket was left behind: $socket"
[[ ! -d $(dirname "$socket") || $(dirname "$socket") == /tmp ]] || fail "its directory was left behind"

# --fork: returns when clients can connect, prints where and who, and holds no pipe of the caller's.
said=$(timeout 60 "${serve[@]}" --fork -U - -P "$work/pid" 2>&1)
equal "$(sed -n '$p' <<<"$said")" "pid $(cat "$work/pid")"
uri=$(sed -n 1p <<<"$said")
pid=$(cat "$work/pid")
server_pids+=("$pid")
nbdinfo --size "$uri" >/dev/null
[[ $(ps -o sid= -p "$pid") -eq $pid ]] || fail "in the session of the caller"
equal "$(readlink /proc/"$pid"/fd/0 /proc/"$pid"/fd/1 /proc/"$pid"/fd/2 | sort -u)" /dev/null
kill -TERM "$pid"
for ((i = 0; i < 200; ++i)); do
  [[ -e $work/pid ]] || break
  sleep 0.05
done
[[ ! -e $work/pid && ! -e $(dirname "$(socket_of "$uri")") ]] || fail "left something behind"
tar -C "$work/tree" -c . | "$MKVIRTFS" serve - --fork --exit-on-last -U "$work/sock" >"$work/said" 2>"$work/kept"
nbdcopy "nbd+unix:///?socket=$work/sock" "$work/forked"
rm "$work/forked"
fails 1 'no-such does not exist' "$MKVIRTFS" serve "$work/no-such" --fork
fails 2 'no --single, --run' "${serve[@]}" --fork --run true
said=$("${serve[@]}" --fork --stats 2>&1) && fail "statistics would be lost"
contains "$said" 'which --fork keeps only where it is a file$'

# -U -: a private socket that only we may enter.
start_server "$work/tree" -U -
socket=$(socket_of "$uri")
directory=$(dirname "$socket")
[[ $(stat -c %a "$directory") == 700 || $(stat -c %a "$socket") == ?00 ]] || fail "others may connect"
nbdinfo --size "$uri" >/dev/null
stop_server
[[ ! -e $socket && ! -e $directory ]] || fail "$directory was left behind"

# Nothing said of addresses: never every interface.
start_server "$work/tree"
[[ $uri != *0.0.0.0* && $uri != *'[::]'* ]] || fail "listens everywhere: $uri"
nbdinfo --size "$uri" >/dev/null
stop_server

# A pidfile at the moment of being ready, gone with the server.
start_server "$work/tree" -U "$work/sock" -P "$work/pid"
equal "$(cat "$work/pid")" "$server_pid" "pidfile"
stop_server
[[ ! -e $work/pid && ! -e $work/sock ]] || fail "left behind: $(ls "$work")"

# What a killed server left does not stop the next one.
start_server "$work/tree" -U "$work/sock"
kill -KILL "$server_pid"
wait "$server_pid" || true
[[ -S $work/sock ]] || fail "the test wants a dead socket"
start_server "$work/tree" -U "$work/sock"
nbdinfo --size "$uri" >/dev/null

# Several clients at once; SIGTERM while they read ends the server in time, and well.
"$MKVIRTFS" dump "$work/tree" -o "$work/image"
for number in 1 2 3 4 5 6; do nbdcopy "$uri" "$work/copy$number" & copies[number]=$!; done
for number in 1 2 3 4 5 6; do
  wait "${copies[number]}" || fail "client $number"
  same "$work/copy$number" "$work/image"
done
python3 - "$uri" "$work/reading" <<'END' &
import sys, nbd
handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
open(sys.argv[2], "w").close()
try:
    while True:
        handle.pread(1 << 20, 0)
except nbd.Error:
    pass
END
reader=$!
for _ in {1..1000}; do [[ -e $work/reading ]] && break; sleep 0.02; done
sleep 0.1
started=$SECONDS
stop_server
((SECONDS - started <= 10)) || fail "SIGTERM took $((SECONDS - started)) s"
wait "$reader"

# A second signal ends it at once: clients that take no replies get no grace, and nothing is left.
start_server "$work/tree"
socket=$(socket_of "$uri")
python3 - "$socket" "$server_pid" <<'END'
import os, signal, socket, struct, sys, time
client = socket.socket(socket.AF_UNIX)
client.settimeout(30)
client.connect(sys.argv[1])
client.recv(18, socket.MSG_WAITALL)
name = b""
client.sendall(struct.pack(">I8sIIIH", 3, b"IHAVEOPT", 7, 4 + len(name) + 2, len(name), 0))
while True:
    magic, option, reply, length = struct.unpack(">QIII", client.recv(20, socket.MSG_WAITALL))
    client.recv(length, socket.MSG_WAITALL)
    assert reply < 1 << 31, hex(reply)
    if reply == 1:
        break
for i in range(16):
    client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, i, 0, 16 << 20))
time.sleep(0.3)
pid = int(sys.argv[2])
begun = time.monotonic()
os.kill(pid, signal.SIGTERM)
time.sleep(0.5)
os.kill(pid, 0)  # it waits for the client
os.kill(pid, signal.SIGTERM)
while True:
    try:
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                break
    except FileNotFoundError:
        break
    assert time.monotonic() - begun < 4, "the second signal did not end the server"
    time.sleep(0.01)
END
status=0
wait "$server_pid" || status=$?
equal "$status" 1 "exit status after two signals"
contains "$(cat "$server_log")" 'ended by a second signal'
[[ ! -e $(dirname "$socket") ]] || fail "the private directory was left behind"

# The same for ^C.
start_server "$work/tree" -U "$work/sock"
kill -INT "$server_pid"
status=0
wait "$server_pid" || status=$?
((status == 0 || status == 130)) || fail "exit status after SIGINT: $status"
[[ ! -e $work/sock ]] || fail "the socket was left behind after SIGINT"

# Names with everything that a URI must escape.
mkdir "$work/a dir & more%20?"
start_server "$work/tree" -U "$work/a dir & more%20?/so#ck"
nbdinfo --size "$uri" >/dev/null || fail "URI with escapes: $uri"
stop_server

# A source that takes its time: statistics that are asked for meanwhile are told later, and end nothing.
mkfifo "$work/fifo"
"$MKVIRTFS" serve "$work/fifo" --fs=ext2 -U "$work/late" --stats --run 'nbdinfo --size "$uri"' \
  >"$work/late.out" 2>"$work/late.err" &
late=$!
server_pids+=("$late")
exec {pipe}>"$work/fifo"
kill -USR1 "$late"
tar -C "$work/tree" -cf - . >&"$pipe"
exec {pipe}>&-
wait "$late" || fail "SIGUSR1 before the server was ready: exit status $?: $(cat "$work/late.err")"
