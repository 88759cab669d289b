#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# ISO 9660 from outside: 100,000 files go in by dump, and xorriso finds them; serving gives the same
# bytes; equal files share theirs on request; cloud-init's label is there.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

fast=$work
if (($(df --output=avail /dev/shm 2>/dev/null | tail -n 1) > 1500000)); then
  fast=$(mktemp -d /dev/shm/mkvirtfs-XXXXXX)
  at_exit() { rm -rf "$fast"; }
fi
python3 - "$fast/many" <<'END'
import os, sys
for directory in range(100):
    below = f"{sys.argv[1]}/directory {directory}"
    os.makedirs(below)
    for number in range(1000):
        with open(f"{below}/A file with a long name {number}.text", "w") as file:
            file.write(f"{number}\n" * (number % 50 == 0))
END
find "$fast/many" -exec touch -h -d '2024-02-03 04:05:06 UTC' {} +
"$MKVIRTFS" dump "$fast/many" --fs=iso -o "$fast/iso" >"$work/out" 2>"$work/err"
[[ ! -s $work/err ]] || fail "dump said: $(cat "$work/err")"
xorriso -drive_class harmless /dev/shm -indev "$fast/iso" -compare_r "$fast/many" / >"$work/compared" 2>&1 || true
differences=$(grep -E '\((DISK|ISO)\)|FAILURE|SORRY' "$work/compared" | grep -vE 'st_[ac]time' || true)
[[ ! $differences ]] || fail "xorriso says: $(head -n 5 <<<"$differences")"
contains "$(cat "$work/compared")" '100[0-9]{3} nodes read'
equal "$(isoinfo -f -J -i "$fast/iso" | wc -l)" 100100 'names in Joliet'
start_server "$fast/many" --fs=iso -U "$work/sock"
nbdcopy "$uri" "$fast/served"
same "$fast/served" "$fast/iso"
nbdinfo "$uri" >"$work/info"
contains "$(cat "$work/info")" 'block_size_preferred: 2048'
stop_server

# Each directory has the same 20 files that are not empty, of a block each.
"$MKVIRTFS" dump "$fast/many" --fs=iso --dedupe -o "$fast/less" >/dev/null
equal "$((($(stat -c %s "$fast/iso") - $(stat -c %s "$fast/less")) / 2048))" $((99 * 20)) 'blocks saved'
xorriso -drive_class harmless /dev/shm -indev "$fast/less" -compare_r "$fast/many" / >"$work/compared" 2>&1 || true
differences=$(grep -E '\((DISK|ISO)\)|FAILURE|SORRY' "$work/compared" | grep -vE 'st_[ac]time' || true)
[[ ! $differences ]] || fail "xorriso says: $(head -n 5 <<<"$differences")"

# A seed for cloud-init, as blkid sees it.
mkdir "$work/seed"
echo '#cloud-config' >"$work/seed/user-data"
"$MKVIRTFS" dump "$work/seed" --preset=cidata -o "$work/no.iso" >/dev/null 2>"$work/err" && fail "a seed without meta-data"
contains "$(cat "$work/err")" 'meta-data is not a file'
: >"$work/seed/meta-data"
"$MKVIRTFS" dump "$work/seed" --preset=cidata --uuid=2026-01-31-23-59-59-00 -o "$work/seed.iso" >/dev/null
equal "$(blkid -p -o value -s LABEL "$work/seed.iso")" cidata
equal "$(blkid -p -o value -s UUID "$work/seed.iso")" 2026-01-31-23-59-59-00
equal "$(blkid -p -o value -s TYPE "$work/seed.iso")" iso9660
