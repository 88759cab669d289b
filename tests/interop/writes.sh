#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# writes.sh DIR: foreign clients write to the copy-on-write example that install.sh has built, and read
# back what they wrote: qemu-io, nbdcopy, nbdsh, fio, and nbdkit's nbd plugin.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

size=$((32 << 20))
noise $size >"$work/below"
cp "$work/below" "$work/kept"
start copy_on_write "$1/build/copy_on_write" "$work/below" "$work/sock"
at="nbd+unix:///?socket=$work/sock"
equal "$(cat "$work/copy_on_write.out")" "nbd+unix:///?socket=$work/sock" "the URI"
for what in flush fua trim zero 'fast-zero' multi-conn; do nbdinfo --can "$what" "$at" || fail "it cannot $what"; done
if nbdinfo --is read-only "$at"; then fail "it is read-only"; fi

# qemu-io: patterns over the borders of blocks, each read back; every kind of request that changes bytes.
qemu_io() {
  qemu-io -f raw "$@" "$at" >"$work/out" 2>&1 && ! grep -qiE 'failed|error' "$work/out" || fail "qemu-io: $(cat "$work/out")"
}
qemu_io -c 'write -P 0xab 4k 64k' -c 'read -P 0xab 4k 64k' \
  -c 'write -P 0xcd 65000 1500' -c 'read -P 0xcd 65000 1500' -c 'read -P 0xab 66500 2000' \
  -c 'write -z 8k 4k' -c 'read -P 0 8k 4k' -c 'read -P 0xab 12k 4k' \
  -c 'write -z -u -f 16k 4k' -c 'read -P 0 16k 4k' \
  -c 'write -f -P 0x11 1M 300k' -c 'flush' -c 'read -P 0x11 1M 300k' \
  -c 'discard 1M 128k' -c 'read -P 0x11 1152k 172k' -c 'flush' \
  -c 'aio_write -P 0x22 2M 1M' -c 'aio_write -P 0x33 3M 1M' -c 'aio_flush' \
  -c 'read -P 0x22 2M 1M' -c 'read -P 0x33 3M 1M' \
  -c "write -P 0x44 $((size - 513)) 513" -c "read -P 0x44 $((size - 513)) 513" \
  -c 'writev -P 0x55 5M 512 4096 1024' -c 'read -P 0x55 5M 5632'
# Another client sees the same; block status knows where there is nothing now.
qemu_io -c 'read -P 0xab 12k 4k' -c 'read -P 0x33 3M 1M'
qemu_io -c 'write -z -u 8M 1M'
qemu-img map --output=json "$at" | python3 -c '
import json, sys
extents = json.load(sys.stdin)
assert any(e["zero"] and not e["data"] and e["start"] <= 8 << 20 and e["start"] + e["length"] >= 9 << 20
           for e in extents), extents'

# nbdcopy into it, with one connection and with four, and out again.
noise $((size - 12345)) >"$work/image"
truncate -s $size "$work/image"
for options in --connections=1 '--connections=4 --requests=16' '--connections=4 --request-size=524288 --flush'; do
  # shellcheck disable=SC2086  # words
  nbdcopy $options "$work/image" "$at"
  nbdcopy "$at" - | cmp - "$work/image" || fail "what nbdcopy $options wrote is not there"
  nbdcopy --connections=4 "$work/kept" "$at"
  nbdcopy "$at" - | cmp - "$work/kept" || fail "what nbdcopy wrote is not there"
done

# nbdkit in front of us, as a client that writes; its log filter would tell of errors.
# shellcheck disable=SC2016  # nbdkit gives $uri to its command
nbdkit -U - nbd "$at" --run "nbdcopy '$work/image' \"\$uri\" && nbdcopy \"\$uri\" - | cmp - '$work/image' &&
  qemu-io -f raw -c 'write -P 0x66 1M 70k' -c 'write -z -u 2M 1M' -c 'discard 4M 1M' -c flush \
    -c 'read -P 0x66 1M 70k' -c 'read -P 0 2M 1M' \"\$uri\"" >"$work/out" 2>&1 || fail "through nbdkit: $(cat "$work/out")"
if grep -q failed "$work/out"; then fail "through nbdkit: $(cat "$work/out")"; fi
qemu_io -c 'read -P 0x66 1M 70k' -c 'read -P 0 2M 1M'

# A random client with a copy of its own, through libnbd; then every byte is compared.
nbdcopy "$work/kept" "$at"
python3 - "$at" "$work/kept" <<'END'
import random
import sys
import nbd
uri, path = sys.argv[1:]
model = bytearray(open(path, "rb").read())
handles = [nbd.NBD() for _ in range(3)]
for h in handles:
    h.connect_uri(uri)
rng = random.Random(7)
size = len(model)
for _ in range(1500):
    h = rng.choice(handles)
    length = rng.choice([1, 511, 4096, 65536, 65537, rng.randrange(1, 300000)])
    at = rng.choice([rng.randrange(size - length), rng.randrange(size // 65536 - 6) * 65536, size - length])
    act = rng.randrange(6)
    if act == 0:
        data = rng.randbytes(length)
        h.pwrite(data, at, rng.choice([0, nbd.CMD_FLAG_FUA]))
        model[at:at + length] = data
    elif act == 1:
        h.zero(length, at, rng.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO, nbd.CMD_FLAG_FUA]))
        model[at:at + length] = bytes(length)
    elif act == 2:
        h.trim(length, at)
        # What was trimmed is anybody's guess until it is written again.
        data = rng.randbytes(length)
        h.pwrite(data, at)
        model[at:at + length] = data
    elif act == 3:
        h.flush()
    else:
        assert h.pread(length, at) == model[at:at + length], (at, length)
for h in handles:
    for at in range(0, size, 1 << 20):
        assert h.pread(1 << 20, at) == model[at:at + (1 << 20)], at
    h.shutdown()
END

# fio writes blocks with checksums, unaligned and mixed with trims, and reads them back.
fio --name=verify --ioengine=nbd --uri="$at" --rw=randwrite --bsrange=512-128k --blockalign=512 --size=$size \
  --iodepth=16 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randseed=3 --output="$work/fio.log" || fail "$(tail -n 20 "$work/fio.log")"
contains "$(cat "$work/fio.log")" 'err= 0'
contains "$(grep -E 'read: IOPS' "$work/fio.log")" 'IOPS=[1-9]'

same "$work/below" "$work/kept"
kill -TERM "$server_pid"
wait "$server_pid" || fail "copy_on_write did not end well"
[[ ! -s $server_log ]] || fail "it complained: $(cat "$server_log")"
