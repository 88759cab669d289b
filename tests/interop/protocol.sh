#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Old handshakes, refused requests and garbage: the server answers as the protocol says and lives.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
"$MKVIRTFS" dump "$work/tree" --fs=ext2 -o "$work/dump"
start_server "$work/tree" --fs=ext2 -U "$work/sock"
# Every file has been opened once, so that what grows from here on is a leak.
nbdcopy "$uri" null:
python3 "$here/protocol.py" "$work/sock" "$work/dump" "$server_pid" "${1-10}"
kill -0 "$server_pid" || fail "the server died"
nbdcopy "$uri" - | cmp - "$work/dump" || fail "after all that"
stop_server
