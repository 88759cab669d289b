#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# examples.sh DIR: what install.sh has built, tried by foreign clients.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

built=$1
start generated_disk "$built/generated_disk" "$work/generated"
at="nbd+unix:///?socket=$work/generated"
equal "$(nbdinfo --size "$at")" $(((1 << 63) - (1 << 30))) "the size of the generated disk"
nbdinfo --is read-only "$at"
python3 - "$work/generated" <<'END'
import random
import struct
import sys
import nbd
h = nbd.NBD()
h.connect_unix(sys.argv[1])
rng = random.Random(1)
for _ in range(200):
    at = rng.randrange(0, h.get_size() - (1 << 20))
    length = rng.choice([1, 7, 512, 4096, 65536, 300001])
    first = at // 8
    words = range(first, (at + length) // 8 + 1)
    whole = struct.pack(">%dQ" % len(words), *(8 * word for word in words))
    assert h.pread(length, at) == whole[at % 8:at % 8 + length], (at, length)
END
contains "$(qemu-io -r -f raw -c 'read -P 0 0 8' -c 'read -v 4096 8' "$at")" '00 00 00 00 00 00 10 00'
# As pkg-config built it, it is the same.
start generated_disk "$built/build/generated_disk" "$work/other"
equal "$(nbdinfo --size "nbd+unix:///?socket=$work/other")" $(((1 << 63) - (1 << 30)))

start poll_loop "$built/build/poll_loop" "$work/stripes"
at="nbd+unix:///stripes?socket=$work/stripes"
for letter in {a..p}; do head -c 65536 < <(tr '\0' "$letter" </dev/zero); done >"$work/expected"
python3 "$here/examples.py" "$work/stripes"
for connections in 1 4; do
  nbdcopy --connections=$connections "$at" - | cmp - "$work/expected" || fail "nbdcopy from poll_loop"
done
contains "$(nbdinfo "$at")" 'x-example:stripe'
contains "$(nbdinfo --map=x-example:stripe "$at" | tail -n 1)" '983040 +65536 +15'
qemu-img compare -f raw -F raw "$at" "$work/expected" >"$work/out" || fail "$(cat "$work/out")"
kill -TERM "$server_pid"
wait "$server_pid" || fail "poll_loop did not end well"
[[ ! -e $work/stripes ]] || fail "poll_loop left its socket behind"
