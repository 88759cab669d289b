#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Ways in that are not listeners of our own: a client that starts its server, a service manager that
# hands over sockets; and servers that end by themselves.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
"$MKVIRTFS" dump "$work/tree" --fs=ext2 -o "$work/image"
size=$(stat -c %s "$work/image")

# libnbd starts the server itself, with a socket as its standard input, or by socket activation.
python3 - "$MKVIRTFS" "$work/tree" "$work/image" <<'END'
import os, sys, nbd
mkvirtfs, tree, image = sys.argv[1:]
with open(image, "rb") as file:
    expected = file.read(32 << 20)
for connect, arguments in (("connect_command", ["-s"]), ("connect_systemd_socket_activation", [])):
    handle = nbd.NBD()
    getattr(handle, connect)([mkvirtfs, "serve", *arguments, tree, "--fs=ext2"])
    assert handle.get_size() == os.path.getsize(image), connect
    assert handle.pread(len(expected), 0) == expected, connect
    handle.shutdown()
END

# With nothing but a file there is no client.
status=0
"$MKVIRTFS" serve -s "$work/tree" --fs=ext2 <"$work/image" 2>"$work/error" || status=$?
equal "$status" 2 "exit status of -s without a socket"
contains "$(cat "$work/error")" 'not a stream socket'

# The last client takes the server with it.
start_server "$work/tree" --fs=ext2 --exit-on-last -U "$work/sock"
equal "$(nbdinfo --size "$uri")" "$size" "size"
status=0
wait "$server_pid" || status=$?
equal "$status" 0 "exit status after the last client"
[[ ! -e $work/sock ]] || fail "the socket was left behind"

# Who only looks whether there is somebody does not.
start_server "$work/tree" --fs=ext2 --exit-on-last -U "$work/sock"
python3 - "$work/sock" <<'END'
import socket, sys
for _ in range(3):
    probe = socket.socket(socket.AF_UNIX)
    probe.connect(sys.argv[1])
    assert probe.recv(8) == b"NBDMAGIC"
    probe.close()
END
sleep 0.3
equal "$(nbdinfo --size "$uri")" "$size" "size after the probes"
wait "$server_pid" || fail "exit status after the probes"

# With a grace another one may come.
start_server "$work/tree" --fs=ext2 --exit-on-last=2 -U "$work/sock"
for _ in 1 2 3; do equal "$(nbdinfo --size "$uri")" "$size" "size"; done
wait "$server_pid"

# No more clients than said; SIGHUP changes nothing.
start_server "$work/tree" --fs=ext2 --max-conn=1 -U "$work/sock"
kill -HUP "$server_pid"
python3 - "$uri" <<'END'
import sys, nbd
first = nbd.NBD()
first.connect_uri(sys.argv[1])
second = nbd.NBD()
try:
    second.connect_uri(sys.argv[1])
    sys.exit("a second client was let in")
except nbd.Error:
    pass
first.pread(512, 0)
END
stop_server

# Two pipes instead of a socket: all that a client says is answered, and its end is ours.
python3 - "$MKVIRTFS" "$work/tree" "$work/image" <<'END'
import socket, subprocess, sys, threading, nbd
mkvirtfs, tree, image = sys.argv[1:]
with open(image, "rb") as file:
    expected = file.read()

def start():
    return subprocess.Popen([mkvirtfs, "serve", "-s", tree, "--fs=ext2"], bufsize=0,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

# libnbd knows sockets only: between it and the pipes stand two threads.
server = start()
ours, theirs = socket.socketpair()

def to_server():
    while data := ours.recv(65536):
        server.stdin.write(data)
    server.stdin.close()

def from_server():
    while data := server.stdout.read(65536):
        ours.sendall(data)
    ours.shutdown(socket.SHUT_WR)

threads = [threading.Thread(target=each) for each in (to_server, from_server)]
for each in threads:
    each.start()
handle = nbd.NBD()
handle.connect_socket(theirs.detach())
at = 0
while at < len(expected):
    length = min(4 << 20, len(expected) - at)
    assert handle.pread(length, at) == expected[at:at + length], at
    at += length
handle.shutdown()
assert server.wait(20) == 0
del handle
for each in threads:
    each.join(20)

# All that was asked is answered, also when the client closes its end at once.
server = start()
hello = (1).to_bytes(4, "big")
go = b"IHAVEOPT" + (7).to_bytes(4, "big") + (6).to_bytes(4, "big") + bytes(6)
read = bytes.fromhex("25609513") + bytes(4) + (9).to_bytes(8, "big") + bytes(8) + (8 << 20).to_bytes(4, "big")
out, _ = server.communicate(hello + go + read, timeout=20)
assert out.endswith(expected[:8 << 20]), len(out)
assert server.returncode == 0

# A client that reads no more, and one that never says anything.
server = start()
server.stdout.close()
server.stdin.write(hello + go + read)
assert server.wait(20) == 0
server.stdin.close()
server = start()
server.stdout.read(18)
server.terminate()
assert server.wait(20) == 0
server.stdin.close()
END

# vsock: where the machine has it, its URI is printed, and leads here if the machine can reach itself.
vsock=$(python3 - <<'END'
import socket
try:
    probe = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        probe.bind((1, socket.VMADDR_PORT_ANY))
        print("loopback")
    except OSError:
        print("some")
except OSError:
    print("none")
END
)
if [[ $vsock == none ]]; then
  fails 1 'listen on vsock port' "$MKVIRTFS" serve "$work/tree" --fs=ext2 --listen=vsock:0
else
  start_server "$work/tree" --fs=ext2 --listen=vsock:0
  contains "$uri" '^nbd\+vsock://1:[1-9][0-9]*/$'
  [[ $vsock != loopback ]] || equal "$(nbdinfo --size "$uri")" "$size" "size over vsock"
  stop_server
  start_server "$work/tree" --fs=ext2 --vsock -p 0
  contains "$uri" '^nbd\+vsock://1:[1-9][0-9]*/$'
  stop_server
  fails 1 'listen on vsock 30583:1' "$MKVIRTFS" serve "$work/tree" --fs=ext2 --listen=vsock:30583:1
fi
fails 2 'vsock:PORT' "$MKVIRTFS" serve "$work/tree" --listen=vsock:here
fails 2 'vsock:PORT' "$MKVIRTFS" serve "$work/tree" --listen=vsock:1:2:3
