#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Writable exports: foreign clients write, what they wrote stays with its export until the server
# ends, and the source never changes.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"
export TMPDIR=$work

small_tree "$work/tree"
# Without a journal there are files where the test writes, and no holes.
"$MKVIRTFS" dump "$work/tree" --fs=ext4 --no-journal -o "$work/image"
"$MANIFEST" "$work/tree" >"$work/before"

for where in temp memory "$work/disk.overlay"; do
  start_server "$work/tree" --fs=ext4 --no-journal --overlay="$where" -U "$work/sock"
  nbdinfo --can write "$uri" || fail "the export is read-only"
  nbdcopy "$uri" "$work/copy"
  same "$work/copy" "$work/image"

  # What is written is there for the next client, in whole blocks and in parts of them.
  qemu-io -f raw "$uri" -c 'write -P 0xaa 1M 1M' -c 'write -P 0xbb 1234567 89' -c 'write -z 4M 256k' \
    -c 'write -z -u 5M 64k' -c 'discard 6M 64k' -c flush >"$work/qemu-io.log"
  qemu-io -f raw "$uri" -c 'read -P 0xaa 1M 100k' -c 'read -P 0xbb 1234567 89' -c 'read -P 0xaa 1234656 100' \
    -c 'read -P 0 4M 256k' -c 'read -P 0 5M 64k' -c 'read -P 0 6M 64k' >"$work/qemu-io.log"
  if grep -qi 'fail' "$work/qemu-io.log"; then fail "$(cat "$work/qemu-io.log")"; fi
  nbdcopy "$uri" "$work/changed"
  equal "$(cmp -l -n $((1 << 20)) "$work/changed" "$work/image" | wc -l)" 0 "changed bytes before what was written"

  # The map says what lies where, and how deep.
  contains "$(nbdinfo --map "$uri")" '^ *5242880 +65536 +3 +hole,zero'
  contains "$(nbdinfo --map=qemu:allocation-depth "$uri")" '^ *1048576 +1048576 +1 '
  contains "$(nbdinfo --map=qemu:allocation-depth "$uri")" '^ *0 +1048576 +2 '

  # fio writes at random and verifies.
  fio --name=v --ioengine=nbd --uri="$uri" --rw=randwrite --bsrange=512-64k --blockalign=512 --iodepth=16 \
    --size=16M --offset=8M --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 --output="$work/fio.log" ||
    fail "$(tail -n 20 "$work/fio.log")"
  stop_server
done

# Twenty jobs at once, each with a clean copy of its own, which it finds again.
start_server "$work/tree" --fs=ext4 --no-journal --clone='job-*' --clone-max=20 -U "$work/sock"
socket=$(socket_of "$uri")
equal "$(nbdinfo --json "$uri" | python3 -c 'import json, sys; print(json.load(sys.stdin)["exports"][0]["is_read_only"])')" \
  True "the default export is read-only without --rw"
cat >"$work/job.py" <<'END'
import sys, nbd
socket, number, image = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open(image, "rb") as file:
    expected = bytearray(file.read(16 << 20))
for turn in range(3):
    handle = nbd.NBD()
    handle.set_export_name(f"job-{number}")
    handle.connect_unix(socket)
    at = (number * 7 + turn) * 70_000
    mine = bytes([number + 1]) * 50_000
    handle.pwrite(mine, at)
    expected[at:at + len(mine)] = mine
    handle.shutdown()
handle = nbd.NBD()
handle.set_export_name(f"job-{number}")
handle.connect_unix(socket)
for at in range(0, len(expected), 1 << 20):
    count = min(1 << 20, len(expected) - at)
    assert handle.pread(count, at) == expected[at:at + count], (number, at)
import sys, nbd
socket, number, image = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open(image, "rb") as file:
    expected = bytearray(file.read(16 << 20))
for turn in range(3):
    handle = nbd.NBD()
    handle.set_export_name(f"job-{number}")
    handle.connect_unix(socket)
    at = (number * 7 + turn) * 70_000
    mine = bytes([number + 1]) * 50_000
    handle.pwrite(mine, at)
    expected[at:at + len(mine)] = mine
    handle.shutdown()
handle = nbd.NBD()
handle.set_export_name(f"job-{number}")
handle.connect_unix(socket)
for at in range(0, len(expected), 1 << 20):
    count = min(1 << 20, len(expected) - at)
    assert handle.pread(count, at) == expected[at:at + count], (number, at)
handle.shutdown()
END
pids=()
for number in $(seq 0 19); do
  python3 "$work/job.py" "$socket" "$number" "$work/image" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || fail "a job did not find what it wrote, and nothing else"; done
# One clone too many: the client learns why.
if nbdinfo --size "nbd+unix:///job-20?socket=$socket" 2>"$work/stderr"; then fail "one clone too many"; fi
contains "$(cat "$work/stderr")" 'server policy prevents'
contains "$(LIBNBD_DEBUG=1 nbdinfo --size "nbd+unix:///job-20?socket=$socket" 2>&1 || true)" '20 clones already, which is the limit'
if qemu-io -r -f raw "nbd+unix:///job-20?socket=$socket" -c 'read 0 512' >"$work/out" 2>&1; then fail "one clone too many"; fi
contains "$(cat "$work/out")" '20 clones already, which is the limit'
contains "$(cat "$server_log")" 'refused: job-20: there are 20 clones already, which is the limit \(try --clone-max\)'
if nbdinfo --size "nbd+unix:///other?socket=$socket" 2>/dev/null; then fail "no clone has that name"; fi
stop_server

# A limit: a lack of space is ENOSPC to write, write zeroes and trim, wherever it is, so that QEMU
# pauses its guest; and the disk lives on.
start_server "$work/tree" --fs=ext4 --no-journal --rw --overlay-max=1M -U "$work/sock"
python3 - "$uri" <<'END'
import sys, nbd
handle = nbd.NBD()
handle.add_meta_context("base:allocation")
handle.connect_uri(sys.argv[1])
extents = []
def extent(_, offset, entries, __):
    for length, flags in zip(entries[::2], entries[1::2]):
        extents.append((offset, length, flags))
        offset += length
handle.block_status(handle.get_size(), 0, extent)
hole = next(offset for offset, length, flags in extents if flags == 3 and length >= 4 << 20)
data = next(offset for offset, length, flags in extents if flags == 0 and length >= 65536)
def error_of(write):
    try:
        write()
    except nbd.Error as error:
        return error.errno
handle.pwrite(b"x" * (1 << 20), hole)
for place in (data, hole + (2 << 20)):
    assert error_of(lambda: handle.pwrite(b"y" * 65536, place)) == "ENOSPC", place
    assert error_of(lambda: handle.pwrite(b"y" * 100, place + 50)) == "ENOSPC", place
    assert error_of(lambda: handle.pwrite(b"y" * 4096, place, nbd.CMD_FLAG_FUA)) == "ENOSPC", place
    assert error_of(lambda: handle.zero(65536, place, nbd.CMD_FLAG_NO_HOLE)) == "ENOSPC", place
    assert error_of(lambda: handle.zero(100, place + 50)) == "ENOSPC", place
    assert len(handle.pread(65536, place)) == 65536
handle.flush()
handle.pwrite(b"z" * (1 << 20), hole)
handle.trim(1 << 20, hole)
handle.pwrite(b"y" * 65536, data)
assert handle.pread(65536, data) == b"y" * 65536
handle.shutdown()
END
stop_server

# The same by QEMU, which prints what it was answered.
start_server "$work/tree" --fs=ext4 --no-journal --rw --overlay-max=64k -U "$work/sock"
for request in 'write -P 1 0 1M' 'write -f -P 1 0 1M' 'write -z 0 1M'; do
  qemu-io -t writeback -f raw "$uri" -c "$request" >"$work/out" 2>&1 || true
  contains "$(cat "$work/out")" 'No space left on device'
done
stop_server

# A disk that is full, below an overlay in a file: ENOSPC to writes, to a flush that needs space, and to
# trims whose state cannot be kept; with space again it all goes on, and nothing that was flushed is lost.
full_disk='
  set -e
  mount -t tmpfs -o size=3m none "$1" || exit 99
  "$2" serve "$3" --fs=ext4 --overlay="$1/disk" -U "$4/full" >"$4/full.out" 2>"$4/full.log" &
  server=$!
  until grep -q "^nbd" "$4/full.out"; do kill -0 $server; sleep 0.05; done
  python3 - "nbd+unix://?socket=$4/full" "$1" <<END
import os, sys, nbd
handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
def error_of(write):
    try:
        write()
    except nbd.Error as error:
        return error.errno
handle.pwrite(b"a" * 65536, 0)
handle.flush()
with open(sys.argv[2] + "/filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(b"f" * 4096)
    except OSError:
        pass
assert error_of(lambda: handle.pwrite(b"b" * 65536, 1 << 20)) == "ENOSPC"
assert error_of(lambda: handle.pwrite(b"b" * 65536, 1 << 20, nbd.CMD_FLAG_FUA)) == "ENOSPC"
assert error_of(lambda: handle.zero(65536, 1 << 20, nbd.CMD_FLAG_NO_HOLE)) == "ENOSPC"
# A block on another page of the map: its state has no room.
far = 128 << 20 if handle.get_size() > 256 << 20 else 16 << 20
assert error_of(lambda: handle.trim(65536, far)) in (None, "ENOSPC")
assert error_of(handle.flush) in (None, "ENOSPC")
assert handle.pread(65536, 0) == b"a" * 65536
os.unlink(sys.argv[2] + "/filler")
handle.pwrite(b"b" * 65536, 1 << 20)
handle.flush()
assert handle.pread(65536, 1 << 20) == b"b" * 65536
handle.shutdown()
END
  kill -TERM $server
  wait $server
  "$2" overlay check "$1/disk"
'
as_root=()
((EUID == 0)) || as_root=(--user --map-root-user)
mkdir "$work/small-disk"
equal "$(unshare --mount "${as_root[@]}" bash -c "$full_disk" - "$work/small-disk" "$MKVIRTFS" "$work/tree" "$work")" sound

"$MANIFEST" "$work/tree" >"$work/after"
same "$work/before" "$work/after"
fails 2 'readonly' "$MKVIRTFS" serve -r --rw "$work/tree"
fails 2 'overlay-max' "$MKVIRTFS" serve --rw --overlay-max=lots "$work/tree"
fails 2 'clone-max' "$MKVIRTFS" serve --clone-max=3 "$work/tree"
