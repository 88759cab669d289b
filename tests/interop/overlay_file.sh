#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Overlays that outlive their server: found again after a stop and after kill -9, refused over
# another image, checked from outside.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
overlay=$work/disk.overlay
serve() { start_server "$work/tree" --fs=ext4 --overlay="$overlay" -U "$work/sock"; }

serve
qemu-io -f raw "$uri" -c 'write -P 0x11 1M 300k' -c 'write -P 0x22 1300000 77' -c 'write -z -u 4M 1M' >"$work/log"
stop_server
serve
qemu-io -f raw "$uri" -c 'read -P 0x11 1M 200k' -c 'read -P 0x22 1300000 77' -c 'read -P 0 4M 1M' >"$work/log"
if grep -qi 'fail' "$work/log"; then fail "$(cat "$work/log")"; fi
contains "$(nbdinfo --map=qemu:allocation-depth "$uri")" '^ *4194304 +1048576 +1 '
# One server at a time.
"$MKVIRTFS" overlay check "$overlay" 2>"$work/stderr" && fail "checked while a server has it"
contains "$(cat "$work/stderr")" 'in use'
fails 1 'in use' "$MKVIRTFS" serve "$work/tree" --fs=ext4 --overlay="$overlay" -U "$work/other"

# kill -9 in the middle of writing: what was flushed, or written with FUA, is there.
python3 - "$uri" "$server_pid" <<'END'
import os, signal, sys, nbd
handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
for number in range(200):
    handle.pwrite(bytes([number]) * 4096, (8 << 20) + number * 4096)
handle.flush()
for number in range(50):
    handle.pwrite(bytes([100 + number]) * 4096, (16 << 20) + number * 65536, nbd.CMD_FLAG_FUA)
for number in range(200):
    handle.pwrite(b"\xee" * 4096, (20 << 20) + number * 8192)
os.kill(int(sys.argv[2]), signal.SIGKILL)
END
wait "$server_pid" 2>/dev/null || true
equal "$("$MKVIRTFS" overlay check "$overlay")" sound
serve
python3 - "$uri" <<'END'
import sys, nbd
handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
for number in range(200):
    assert handle.pread(4096, (8 << 20) + number * 4096) == bytes([number]) * 4096, number
for number in range(50):
    assert handle.pread(4096, (16 << 20) + number * 65536) == bytes([100 + number]) * 4096, number
for number in range(200):
    got = handle.pread(4096, (20 << 20) + number * 8192)
    assert got == b"\xee" * 4096 or b"\xee" not in got, number
handle.shutdown()
END
stop_server
info=$("$MKVIRTFS" overlay info --json "$overlay")
equal "$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["zero_bytes"])' "$info")" $((1 << 20))
contains "$("$MKVIRTFS" overlay info "$overlay")" '^written +[1-9][0-9]* bytes'

# With --write-through every answered write, zero and trim is there after kill -9, without a flush.
rm -f "$overlay"*
start_server "$work/tree" --fs=ext4 --overlay="$overlay" --write-through -U "$work/sock"
python3 - "$uri" "$server_pid" <<'END'
import os, signal, sys, threading, nbd
def write(thread):
    handle = nbd.NBD()
    handle.connect_uri(sys.argv[1])
    for number in range(thread, 400, 4):
        handle.pwrite(bytes([number % 255 + 1]) * 4096, (8 << 20) + number * 8192)
    handle.zero(4096, (8 << 20) + thread * 8192)
threads = [threading.Thread(target=write, args=(each,)) for each in range(4)]
for each in threads: each.start()
for each in threads: each.join()
os.kill(int(sys.argv[2]), signal.SIGKILL)
END
wait "$server_pid" 2>/dev/null || true
serve
python3 - "$uri" <<'END'
import sys, nbd
handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
for number in range(400):
    expected = 0 if number < 4 else number % 255 + 1
    assert handle.pread(4096, (8 << 20) + number * 8192) == bytes([expected]) * 4096, number
handle.shutdown()
END
stop_server
fails 2 'overlays that stay' "$MKVIRTFS" serve --rw --write-through "$work/tree"

# Killed at random points, again and again: each block is what it was when the last flush was answered,
# or what was written to it since.
cat >"$work/killed.py" <<'END'
import json, os, random, signal, struct, sys, threading, nbd
uri, pid, state, seed, last = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5] == "last"
START, BLOCKS = 32 << 20, 1024
choose = random.Random(seed)
handle = nbd.NBD()
handle.connect_uri(uri)
def block(value):
    return struct.pack("<Q", value) * 512
if os.path.exists(state):
    with open(state) as file:
        value, allowed = json.load(file)
    for number, values in enumerate(allowed):
        got = handle.pread(4096, START + number * 4096)
        found, = struct.unpack_from("<Q", got)
        assert found in values and got == block(found), (seed, number, found, values)
        allowed[number] = [found]
else:
    value, allowed = 0, [[0]] * BLOCKS
    handle.zero(BLOCKS * 4096, START)
handle.flush()
if last:
    handle.shutdown()
    sys.exit()
threading.Timer(choose.uniform(0.02, 0.2), os.kill, [pid, signal.SIGKILL]).start()
try:
    while True:
        value += 1
        first = choose.randrange(BLOCKS)
        touched = range(first, min(first + choose.choice([1, 3, 80, 200]), BLOCKS))
        flags = nbd.CMD_FLAG_FUA if choose.randrange(8) == 0 else 0
        for number in touched:
            allowed[number] = [*allowed[number], value]
        handle.pwrite(block(value) * len(touched), START + first * 4096, flags)
        if flags:
            for number in touched:
                allowed[number] = [value]
        if choose.randrange(5) == 0:
            handle.flush()
            allowed = [values[-1:] for values in allowed]
except nbd.Error:
    pass
with open(state, "w") as file:
    json.dump([value, allowed], file)
END
seed=$RANDOM
for round in 1 2 3 4 5; do
  serve
  python3 "$work/killed.py" "$uri" "$server_pid" "$work/state" "$seed-$round" more
  wait "$server_pid" 2>/dev/null || true
  equal "$("$MKVIRTFS" overlay check "$overlay")" sound
done
serve
python3 "$work/killed.py" "$uri" "$server_pid" "$work/state" "$seed" last
stop_server

# It belongs to its image, and to nothing else.
fails 2 'another image' "$MKVIRTFS" serve "$work/tree" --fs=ext2 --overlay="$overlay" -U "$work/sock"
echo changed >"$work/tree/new"
fails 2 'another image' "$MKVIRTFS" serve "$work/tree" --fs=ext4 --overlay="$overlay" -U "$work/sock"
rm "$work/tree/new"
fails 2 'not an overlay' "$MKVIRTFS" overlay check "$work/tree/noise"
fails 2 'one export' "$MKVIRTFS" serve "$work/tree" --overlay="$overlay" --clone='job-*'
truncate -s 3000000 "$overlay"
fails 1 'has 3000000 bytes of' "$MKVIRTFS" overlay check "$overlay"
fails 1 'No such file' "$MKVIRTFS" overlay info "$work/missing"

# A directory has a file for each export and each clone, which come back with it.
serve_directory() {
  start_server "$@" --fs=ext4 --overlay="$work/overlays/" --clone='job-*' --clone='ci/*' --clone-max=3 -U "$work/sock" --ctl="$work/ctl"
  socket=$(socket_of "$uri")
}
disk() { echo "nbd+unix:///$1?socket=$socket"; }
listed() {
  nbdinfo --list --json "$(disk '')" |
    python3 -c 'import json, sys; print(*sorted(e["export-name"] for e in json.load(sys.stdin)["exports"]))'
}
serve_directory "$work/tree" "second=$work/tree"
equal "$(listed)" " second"
for name in '' second job-1 ci/one; do
  qemu-io -f raw "$(disk "$name")" -c "write -P 0x4${#name} 1M 64k" >"$work/log"
done
equal "$(listed)" " ci/one job-1 second" "clones that exist"
stop_server
equal "$(cd "$work/overlays" && echo *)" \
  '%.overlay %.overlay.base ci%2Fone.overlay ci%2Fone.overlay.base job-1.overlay job-1.overlay.base second.overlay second.overlay.base'
for file in "$work"/overlays/*.overlay; do equal "$("$MKVIRTFS" overlay check "$file")" sound; done
serve_directory "$work/tree" "second=$work/tree"
equal "$(listed)" " ci/one job-1 second" "clones of the server before"
for name in '' second job-1 ci/one; do
  qemu-io -f raw "$(disk "$name")" -c "read -P 0x4${#name} 1M 64k" >"$work/log"
  if grep -qi 'fail' "$work/log"; then fail "$name: $(cat "$work/log")"; fi
done
# The two from before count.
nbdinfo --size "$(disk job-2)" >/dev/null
if nbdinfo --size "$(disk job-3)" 2>/dev/null; then fail "one clone too many"; fi
"$MKVIRTFS" ctl "$work/ctl" discard job-1
[[ ! -e $work/overlays/job-1.overlay && ! -e $work/overlays/job-1.overlay.base ]] || fail "discarded, and still on the disk"
qemu-io -f raw "$(disk job-1)" -c "read -P 0x45 1M 64k" >"$work/log" 2>&1 && fail "discarded, and still there"
stop_server
echo changed >"$work/tree/new"
serve_directory "$work/tree"
nbdinfo --size "$(disk ci/one)" 2>"$work/stderr" && fail "an overlay over another image"
contains "$(cat "$server_log")" 'export ci/one: .*another image'
"$MKVIRTFS" ctl "$work/ctl" discard ci/one # the limit is three
nbdinfo --size "$(disk ci/one)" >/dev/null
kill -TERM "$server_pid"
wait "$server_pid"
"$MKVIRTFS" serve "$work/tree" --overlay="$work/missing/overlays/" 2>"$work/stderr" && fail "a directory without a parent"
contains "$(cat "$work/stderr")" 'No such file'

# A file without a byte is begun anew, and that is said; so in a directory.
: >"$work/empty.overlay"
start_server "$work/tree" --fs=ext4 --overlay="$work/empty.overlay" -U "$work/sock"
equal "$(cat "$server_log")" "mkvirtfs: warning: $work/empty.overlay: the file is empty: the overlay begins anew"
stop_server
equal "$("$MKVIRTFS" overlay check "$work/empty.overlay")" sound
start_server "$work/tree" --fs=ext4 --overlay="$work/empty.overlay" -U "$work/sock"
stop_server
equal "$(cat "$server_log")" "" "what is said of an overlay that is one"
mkdir -p "$work/anew"
: >"$work/anew/%.overlay"
start_server "$work/tree" --fs=ext4 --overlay="$work/anew/" -U "$work/sock"
nbdinfo --size "$uri" >"$work/size"
stop_server
equal "$(grep -c 'the file is empty: the overlay begins anew' "$server_log")" 1 "lines on an empty overlay"
