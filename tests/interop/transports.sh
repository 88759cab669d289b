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
