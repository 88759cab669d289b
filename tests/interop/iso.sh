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

# What is left to applications is blank: implantisomd5 takes it for unused, and Anaconda checks it.
cp "$work/seed.iso" "$work/md5.iso"
implantisomd5 "$work/md5.iso" >"$work/out" || fail "implantisomd5: $(cat "$work/out")"
checkisomd5 "$work/md5.iso" >"$work/out" || fail "checkisomd5: $(cat "$work/out")"
"$MKVIRTFS" dump "$work/seed" --preset=cidata --defaults=0.1 -o "$work/old.iso" >/dev/null
! implantisomd5 "$work/old.iso" >"$work/out" 2>&1 || fail "implantisomd5 takes zeroes for blanks"

# A name beyond UCS-2 is no loss to libcdio, in Joliet nor in Rock Ridge.
mkdir -p "$work/names/sub"
echo smile >"$work/names/sub/a😀b.txt"
echo plain >"$work/names/sub/plain.txt"
"$MKVIRTFS" dump "$work/names" --fs=iso -o "$work/names.iso" >/dev/null 2>"$work/err"
contains "$(cat "$work/err")" '1 name was changed in Joliet'
iso-info --no-rock-ridge -f "$work/names.iso" >"$work/found"
contains "$(cat "$work/found")" '/sub/a_b.txt'
for name in "a😀b.txt" plain.txt; do
  iso-read -i "$work/names.iso" -e "/sub/$name" -o "$work/read" || fail "iso-read finds no $name"
done
equal "$(cat "$work/read")" plain
equal "$(isoinfo -J -f -i "$work/names.iso" | grep -c '/sub/a_b.txt')" 1 'a character beyond UCS-2'
"$MKVIRTFS" dump "$work/names" --fs=iso --joliet=utf16 -o "$work/pairs.iso" >/dev/null 2>"$work/err"
[[ ! -s $work/err ]] || fail "with pairs: $(cat "$work/err")"
contains "$(LC_ALL=C.UTF-8 7z l -ba "$work/pairs.iso")" 'a😀b.txt'

# GRUB enters directories below eight levels, where they stand.
deep=1/2/3/4/5/6/7/8/9/10
mkdir -p "$work/deep/$deep" && echo deep >"$work/deep/$deep/file"
"$MKVIRTFS" dump "$work/deep" --fs=iso -o "$work/deep.iso" >/dev/null
equal "$(grub-fstest "$work/deep.iso" cat "/$deep/file")" deep 'a deep file to GRUB'
equal "$(iso-info -f "$work/deep.iso" | grep -c "/$deep/file")" 1 'a deep file to libcdio'
"$MKVIRTFS" dump "$work/deep" --fs=iso --deep-directories=relocate -o "$work/moved.iso" >/dev/null
! grub-fstest "$work/moved.iso" cat "/$deep/file" >"$work/out" 2>&1 || fail "GRUB finds relocated directories, too"

# Symlinks that are followed: the tree that cp -L makes, without more bytes for the same files.
mkdir -p "$work/links/real/below"
noise 100000 >"$work/links/real/below/file"
ln -s real "$work/links/copy"
ln -s /real/below/file "$work/links/rooted"
ln -s ../copy "$work/links/real/up"
fails 1 'copy/up is a symlink that leads in a circle: ../copy' \
  "$MKVIRTFS" dump "$work/links" --fs=iso --symlinks=follow -o "$work/no.iso"
rm "$work/links/real/up" && ln -s ../real/below/file "$work/links/real/up"
"$MKVIRTFS" dump "$work/links" --fs=iso --symlinks=follow -o "$work/links.iso" --force >/dev/null 2>"$work/err"
[[ ! -s $work/err ]] || fail "following symlinks: $(cat "$work/err")"
ln -sf real/below/file "$work/links/rooted"
cp -rL "$work/links" "$work/expected"
mkdir "$work/unpacked" && bsdtar -xf "$work/links.iso" -C "$work/unpacked"
diff -r "$work/expected" "$work/unpacked" || fail "not what cp -L makes"
genisoimage -quiet -f -R -J -o "$work/genisoimage.iso" "$work/links"
for hierarchy in -R -J; do
  # genisoimage writes no versions in Joliet.
  equal "$(isoinfo "$hierarchy" -f -i "$work/links.iso" | sed 's/;1$//' | sort)" \
    "$(isoinfo "$hierarchy" -f -i "$work/genisoimage.iso" | sort)" "names by $hierarchy"
done
(($(stat -c %s "$work/links.iso") < 200000)) || fail "the bytes of a file are there more than once"
ln -s gone "$work/links/none"
fails 1 'none is a symlink to what is not in the source: gone .*--symlinks=keep' \
  "$MKVIRTFS" dump "$work/links" --fs=iso --symlinks=follow -o "$work/no.iso"
fails 2 'symlinks=skip: none of keep, follow' "$MKVIRTFS" dump "$work/links" --fs=iso --symlinks=skip -o "$work/no.iso"
