#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A source on a file system whose reads may wait and that cannot say which (no RWF_NOWAIT): here FUSE,
# by nbdfuse over a slow nbdkit. Reads wait beside each other, and what needs no file waits for none.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

mounted=no
at_exit() { [[ $mounted == no ]] || umount -l "$work/fuse/tree"; }

delay_s=2
mkdir -p "$work/fuse/tree"
start slow nbdkit -f -r --filter=delay pattern size=32M "rdelay=$delay_s" -U "$work/slow"
nbdfuse -r "$work/fuse/tree/file" "nbd+unix:///?socket=$work/slow" >"$work/nbdfuse.log" 2>&1 &
server_pids+=($!)
deadline=$((SECONDS + 20))
until [[ -e $work/fuse/tree/file ]]; do
  if ! kill -0 "${server_pids[-1]}" 2>/dev/null; then
    echo "skipped: this host lets us mount no FUSE: $(head -n 1 "$work/nbdfuse.log")"
    exit 0
  fi
  ((SECONDS < deadline)) || fail "nbdfuse was not ready in time"
  sleep 0.05
done
mounted=yes

check() {
  python3 - "$uri" "$delay_s" <<'END_OF_PYTHON'
import struct, sys, time, nbd

uri, delay_s = sys.argv[1], float(sys.argv[2])
STEP = 2 << 20
handle = nbd.NBD()
handle.connect_uri(uri)
size = handle.get_size()
offsets = range(STEP, STEP * 7, STEP)
begun = time.monotonic()
buffers = [nbd.Buffer(65536) for _ in offsets]
cookies = [handle.aio_pread(buffer, offset) for buffer, offset in zip(buffers, offsets)]
# The superblock and what is behind the last file come while the six wait.
metadata = handle.aio_pread(nbd.Buffer(4096), 0)
while not handle.aio_command_completed(metadata):
    assert handle.poll(20000) == 1
metadata_s = time.monotonic() - begun
assert not any(handle.aio_command_completed(cookie) for cookie in cookies), "a read did not wait"
left = set(cookies)
while left:
    assert handle.poll(20000) == 1
    left = {cookie for cookie in left if not handle.aio_command_completed(cookie)}
all_s = time.monotonic() - begun
# One behind the other they would take six delays.
assert metadata_s < delay_s, f"metadata waited for {metadata_s:.2f} s"
assert all_s < 4 * delay_s, f"the reads waited for each other: {all_s:.2f} s"
for buffer in buffers:
    words = struct.unpack(">8192Q", buffer.to_bytearray())
    # Words of nbdkit's pattern are the file's own offsets.
    assert words[0] > 0 and all(word == words[0] + 8 * i for i, word in enumerate(words)), words[:4]
handle.shutdown()
END_OF_PYTHON
}

# A directory, and an archive that is read where it lies.
start_server "$work/fuse/tree" --fs=ext2 -U "$work/sock"
check
stop_server
