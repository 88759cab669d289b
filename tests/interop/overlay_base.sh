#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What lies below an overlay that stays: files that changed behind its back are seen, named and
# compared; what it holds can be had without them.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

tree=$work/tree
overlay=$work/disk.overlay
small_tree "$tree"
printf 'settings=1\n' >"$tree/conf"
touch -d '2024-02-03 04:05:06.789' "$tree/conf" "$tree"
options=(--fs=ext4 --overlay="$overlay" -U "$work/sock")
serve() { start_server "$tree" "${options[@]}" "$@"; }
refused() { fails 2 "$1" "$MKVIRTFS" serve "$tree" "${options[@]}" "${@:2}"; }
opens() {
  serve "$@"
  equal "$(nbdinfo --json "$uri" | grep -c '"is_read_only": false')" 1 "writable"
  qemu-io -r -f raw "$uri" -c 'read -P 0x11 8M 64k' >"$work/log"
  if grep -qi 'fail' "$work/log"; then fail "$(cat "$work/log")"; fi
  stop_server
}
facts() { "$MKVIRTFS" overlay info --json "$overlay" | python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }
# The same size and mtime, as trees with clamped mtimes have them each day: rewrite FILE TEXT.
rewrite() {
  local mtime
  mtime=$(stat -c %y "$tree/$1")
  printf '%s' "$2" 1<>"$tree/$1"
  touch -d "$mtime" "$tree/$1"
}

# 1. A base that was rewritten with the same size and mtime.
serve
qemu-io -f raw "$uri" -c 'write -P 0x11 8M 64k' -c 'write -z -u 9M 1M' >"$work/log"
"$MKVIRTFS" dump "$tree" --fs=ext4 -o "$work/base.img"
stop_server
[[ -s $overlay.base ]] || fail "no base manifest"
equal "$(stat -c %a "$overlay.base")" 600
id=$(facts base_id)
[[ $(facts base_files) -gt 5 ]] || fail "$("$MKVIRTFS" overlay info "$overlay")"
equal "$(facts base_digests)" 0
opens
rewrite conf 'settings=2'
refused '1 file of its base may have other bytes than when it was made: conf \(ctime .* then, .* now\).*--overlay-base=accept.*overlay seal.*--base-check=mtime'
opens --base-check=mtime
refused 'conf'
opens --overlay-base=accept
opens
equal "$(facts base_id)" "$id" "the base id is that of the image alone"

# 2. With digests, content is compared.
contains "$("$MKVIRTFS" overlay seal "$overlay")" '^[0-9]+ files have digests'
[[ $(facts base_digests) -eq $(facts base_files) || $(facts base_digests) -gt 5 ]] || fail "not sealed"
rewrite conf 'settings=2' # the same content
opens
opens --base-check=content
rewrite conf 'settings=3'
refused '1 file of its base has other bytes than when it was made: conf \(its SHA-256'
refused 'other bytes' --base-check=content
rewrite conf 'settings=2'
opens
# Restored from a copy: all inodes and ctimes are new, the content is the same.
cp -a "$tree" "$work/copy"
rm -rf "$tree"
mv "$work/copy" "$tree"
opens

# 3. After touch of one file the message says how to go on.
touch "$tree/conf"
refused "another image: conf \(mtime 2024-02-03T04:05:06.789Z then, .* now: touch -d 2024-02-03T04:05:06.789Z $tree/conf\)"
bash -c "$(grep -oE 'touch -d [^ ]+ [^ )]+' "$work/stderr")"
opens
touch "$tree"
refused "its root \(mtime .*: touch -d 2024-02-03T04:05:06.789Z $tree\)"
touch -d 2024-02-03T04:05:06.789Z "$tree"
opens
chmod 600 "$tree/conf"
refused 'another image: conf \(mode 0644 then, 0600 now\)'
chmod 644 "$tree/conf"
opens
refused 'another image: .*--label=x now and not then' --label=x
refused 'another image: .*--overlay-base=any' --label=x --overlay-base=accept

# 4. Over another image it opens to be read alone.
mkdir "$tree/new"
refused 'new \(it is new\).*--overlay-base=any'
serve --overlay-base=any --size=600M
contains "$(nbdinfo --json "$uri")" '"is_read_only": true'
qemu-io -r -f raw "$uri" -c 'read -P 0x11 8M 64k' -c 'read -P 0 9M 1M' >"$work/log"
if grep -qi 'fail' "$work/log"; then fail "$(cat "$work/log")"; fi
equal "$(nbdinfo --size "$uri")" "$(facts size_bytes)" "the size is that of the overlay"
stop_server
rmdir "$tree/new"
touch -d 2024-02-03T04:05:06.789Z "$tree"
opens

# 5. An overlay of an older program gets its manifest; one that is damaged says nothing of files.
rm "$overlay.base"
serve
contains "$(cat "$server_log")" 'has no base manifest'
stop_server
[[ -s $overlay.base ]] || fail "an older overlay got no manifest"
opens
printf x | dd of="$overlay.base" bs=1 seek=300 conv=notrunc status=none
fails 1 'damaged' "$MKVIRTFS" overlay check "$overlay"
fails 1 'damaged.*--overlay-base=accept' "$MKVIRTFS" serve "$tree" "${options[@]}"
opens --overlay-base=accept
opens
equal "$("$MKVIRTFS" overlay check "$overlay")" sound

# 6. Whole content from the start.
rm -f "$overlay" "$overlay.base"
serve --base-check=content
stop_server
[[ $(facts base_digests) -gt 5 ]] || fail "no digests taken"
fails 2 'overlays that stay' "$MKVIRTFS" serve "$tree" --rw --base-check=content
fails 2 'overlays that stay' "$MKVIRTFS" serve "$tree" --overlay-base=any
rm -f "$overlay" "$overlay.base"
fails 1 'No such file' "$MKVIRTFS" serve "$tree" "${options[@]}" --overlay-base=any
# A name that is taken.
echo precious >"$overlay.base"
refused 'no base manifest of mkvirtfs'
equal "$(cat "$overlay.base")" precious
rm -f "$overlay" "$overlay.base"

# 7. Mtimes that SOURCE_DATE_EPOCH clamps: the image is the same, the file is not.
export SOURCE_DATE_EPOCH=1000000000
serve
stop_server
printf 'settings=7\n' >"$tree/conf"
refused 'may have other bytes.*conf \(mtime'
unset SOURCE_DATE_EPOCH
rm -f "$overlay" "$overlay.base"

# 8. Each snapshot has a manifest, and discarding removes it; a directory is alike.
serve --ctl="$work/ctl"
"$MKVIRTFS" ctl "$work/ctl" snapshot '' child
[[ -s $overlay@child.overlay.base ]] || fail "the child has no manifest"
"$MKVIRTFS" ctl "$work/ctl" discard child
[[ ! -e $overlay@child.overlay.base && -s $overlay.base ]] || fail "discard: $(ls "$work")"
"$MKVIRTFS" ctl "$work/ctl" snapshot '' child
stop_server
rewrite conf 'settings=8'
refused 'conf'
opens_child() {
  start_server "$tree" "${options[@]}" "$@"
  nbdinfo --size "nbd+unix:///child?socket=$work/sock" >/dev/null 2>&1
}
opens_child --overlay-base=accept || fail "the child is refused though accepted"
stop_server
opens_child || fail "the child is refused"
stop_server
start_server "$tree" --fs=ext4 --overlay="$work/overlays/" --ctl="$work/ctl" -U "$work/sock"
nbdinfo --size "$uri" >/dev/null
[[ -s $work/overlays/%.overlay.base ]] || fail "no manifest in the directory"
"$MKVIRTFS" ctl "$work/ctl" discard ''
equal "$(ls -A "$work/overlays")" '' "what discard left"
stop_server
rm -rf "$work/overlays" "$overlay"*

# 9. An archive is a file of the base, too, and so is a tree below --at.
(cd "$tree" && tar -cf "$work/base.tar" conf noise)
sources=("$work/base.tar" --at=/below "$tree/bin")
start_server "${sources[@]}" "${options[@]}"
stop_server
start_server "${sources[@]}" "${options[@]}"
stop_server
mtime=$(stat -c %y "$work/base.tar")
printf 'settings=9' | dd of="$work/base.tar" bs=1 seek=512 conv=notrunc status=none
touch -d "$mtime" "$work/base.tar"
fails 2 'may have other bytes.*base.tar \(ctime' "$MKVIRTFS" serve "${sources[@]}" "${options[@]}"
start_server "${sources[@]}" "${options[@]}" --overlay-base=accept
stop_server
rewrite bin/4096 'another line'
fails 2 'may have other bytes.*below/4096 \(ctime' "$MKVIRTFS" serve "${sources[@]}" "${options[@]}"
start_server "${sources[@]}" "${options[@]}" --overlay-base=accept
stop_server
"$MKVIRTFS" overlay seal "$overlay" >/dev/null
rewrite bin/4096 'another line'
start_server "${sources[@]}" "${options[@]}"
stop_server
# What comes through a pipe is compared by its content.
rm -f "$overlay"*
piped() { "$MKVIRTFS" serve - "${options[@]}" --run true <"$1"; }
cat "$work/base.tar" | piped /dev/stdin
cat "$work/base.tar" | piped /dev/stdin
printf 'settings=0' | dd of="$work/base.tar" bs=1 seek=512 conv=notrunc status=none
cat "$work/base.tar" | piped /dev/stdin 2>"$work/stderr" && fail "another archive through the pipe"
contains "$(cat "$work/stderr")" 'other bytes'
rm -f "$overlay"*

# 10. A source that was moved is the same; it is found and sealed where it is now.
serve
stop_server
mv "$tree" "$work/moved"
fails 1 'where the files of the base were' "$MKVIRTFS" overlay seal "$overlay"
tree=$work/moved
serve
stop_server
"$MKVIRTFS" overlay seal "$overlay" >/dev/null
serve
fails 1 'in use' "$MKVIRTFS" overlay seal "$overlay"
stop_server
rm -f "$overlay.base"
fails 2 'no base manifest yet' "$MKVIRTFS" overlay seal "$overlay"
mv "$work/moved" "$work/tree"
tree=$work/tree
rm -f "$overlay"*

# 11. What a server makes in a source would change the source with each start.
inside() { fails 2 "$1.* lies in the source $tree: .*such as $work/$2" "$MKVIRTFS" serve "$tree" --fs=ext4 "${@:3}"; }
inside --overlay disk.overlay --overlay="$tree/disk.overlay" -U "$work/sock"
inside --overlay disk.overlay --overlay="$tree/bin/../empty/disk.overlay" -U "$work/sock"
inside --overlay overlays/ --overlay="$tree/overlays/" -U "$work/sock"
inside --unix sock --overlay="$overlay" -U "$tree/sock"
inside --ctl ctl --overlay="$overlay" --ctl="$tree/bin/ctl" -U "$work/sock"
inside --pidfile pid --overlay="$overlay" -P "$tree/pid" -U "$work/sock"
ln -s "$tree/empty" "$work/link"
inside --overlay disk.overlay --overlay="$work/link/disk.overlay" -U "$work/sock"
[[ ! -e $overlay && ! -e $tree/disk.overlay ]] || fail "an overlay was made"
start_server "$tree" --fs=ext4 --exclude=/empty --overlay="$tree/empty/disk.overlay" -U "$work/sock"
stop_server
start_server "$tree" --fs=ext4 --exclude=/empty --overlay="$tree/empty/disk.overlay" -U "$work/sock"
stop_server
rm -f "$tree"/empty/*
start_server "$tree" --fs=ext4 --rw -U "$tree/sock"
stop_server

# 12. What an overlay holds, laid over a copy of the image as the manual page says, is the disk.
serve --ctl="$work/ctl"
"$MKVIRTFS" dump "$tree" --fs=ext4 -o "$work/disk.img"
qemu-io -f raw "$uri" -c 'write -P 0x33 1M 100k' -c 'write -P 0x44 3000001 77' -c 'write -z -u 0 8k' >"$work/log"
"$MKVIRTFS" ctl "$work/ctl" snapshot '' child
qemu-io -f raw "$uri" -c 'write -P 0x55 1M 4k' -c 'write -z -u 1064960 4k' >"$work/log"
"$MKVIRTFS" ctl "$work/ctl" save '' -o "$work/saved.img"
fails 1 'in use' "$MKVIRTFS" overlay export "$overlay" -o "$work/out.raw"
stop_server
manual=$here/../../cli/man/mkvirtfs.1
sed -n '/^To apply it to a copy/,/^\.fi/p' "$manual" | sed -n '/^\.nf/,/^\.fi/{/^\./!p}' | sed 's/\\-/-/g; s/\\e/\\/g' >"$work/recipe"
(cd "$work" && PATH=$(dirname "$MKVIRTFS"):$PATH bash -eu recipe)
same "$work/disk.img" "$work/saved.img"
equal "$(head -2 "$work/out.ranges")" $'0 8192 zero\n1048576 16384 data'
equal "$(stat -c %s "$work/out.raw")" "$(stat -c %s "$work/disk.img")"
[[ $(du -k "$work/out.raw" | cut -f1) -lt 200 ]] || fail "not sparse"
fails 2 'exists already' "$MKVIRTFS" overlay export "$overlay" -o "$work/out.raw"
"$MKVIRTFS" overlay export "$overlay" -o "$work/out.raw" --force >"$work/again.ranges"
same "$work/out.ranges" "$work/again.ranges"
fails 2 'the overlay itself' "$MKVIRTFS" overlay export "$overlay" -o "$overlay" --force
fails 2 'needs -o' "$MKVIRTFS" overlay export "$overlay"
fails 2 'not an overlay' "$MKVIRTFS" overlay export "$tree/noise" -o "$work/other.raw"
[[ ! -e $work/other.raw ]] || fail "a failed export left its file"

# 13. An EFI system partition that is made has files of no source.
mkdir -p "$work/efi/EFI/BOOT"
cp /usr/lib/systemd/boot/efi/systemd-bootx64.efi "$work/efi/EFI/BOOT/BOOTX64.EFI"
for run in first second; do
  start_server "$work/efi" --fs=ext4 --esp=64M --boot=uefi --loader="$work/efi/EFI/BOOT/BOOTX64.EFI" \
    --overlay="$work/efi.overlay" -U "$work/sock"
  [[ $run == first ]] || qemu-io -r -f raw "$uri" -c 'read -P 0x22 30M 64k' >"$work/log"
  ! grep -qi 'fail' "$work/log" || fail "$(cat "$work/log")"
  qemu-io -f raw "$uri" -c 'write -P 0x22 30M 64k' >"$work/log"
  stop_server
done

# 14. What of an image comes from elsewhere than its sources: a loader of the user's own is a file of the base, and so is
# a file that an option names; pieces of loaders are a part of the base id.
mkdir -p "$work/small/boot" "$work/pieces"
cp /usr/lib/systemd/boot/efi/* "$work/pieces"
cp /usr/lib/systemd/boot/efi/systemd-bootx64.efi "$work/loader.efi"
cp "$work/loader.efi" "$work/small/boot/vmlinuz-1"
noise 5000 >"$work/small/boot/init.img"
noise 4000 >"$work/file"
# of_base FILE WHAT OPTION...: once bytes of FILE have changed, with the same size and mtime, the overlay is refused.
of_base() {
  local file=$1 what=$2
  shift 2
  rm -f "$overlay"*
  for _ in first second; do
    start_server "$@" --overlay="$overlay" -U "$work/sock"
    stop_server
  done
  cp -p "$file" "$work/kept"
  printf changed | dd of="$file" bs=1 seek=900 conv=notrunc status=none
  touch -r "$work/kept" "$file"
  fails 2 "$what" "$MKVIRTFS" serve "$@" --overlay="$overlay" -U "$work/sock"
  cp "$work/kept" "$file"
}
of_base "$work/loader.efi" 'may have other bytes.*: loader.efi \(ctime' "$work/small" --fs=fat16 --boot=uefi \
  --loader="$work/loader.efi"
of_base "$work/loader.efi" 'may have other bytes.*: loader.efi \(ctime' "$work/small" --fs=ext4 --esp=64M --boot=uefi \
  --loader="$work/loader.efi"
of_base "$work/small/boot/init.img" 'may have other bytes.*: 1/boot/init.img \(ctime' "$work/small" --fs=ext4 --esp=64M \
  --boot=uki --initrd=boot/init.img
of_base "$work/small/boot/vmlinuz-1" 'may have other bytes.*: boot/vmlinuz-1 \(ctime' "$work/small" --fs=fat16 --boot=uki \
  --append=root=/dev/vda --kernel=boot/vmlinuz-1
of_base "$work/pieces/linuxx64.efi.stub" 'another image' "$work/small" --fs=fat16 --boot=uki --append=root=/dev/vda \
  --boot-files="$work/pieces"
of_base "$work/file" 'may have other bytes.*: in/it \(ctime' "$work/small" --fs=ext4 --file="/in/it=$work/file"
of_base "$work/file" 'may have other bytes.*: 1/image \(ctime' --partition "$work/file,fs=raw"
# A loader that comes through a pipe is compared by its content.
rm -f "$overlay"*
piped_loader() {
  "$MKVIRTFS" serve "$work/small" --fs=fat16 --boot=uefi --loader=- --overlay="$overlay" -U "$work/sock" --run true
}
piped_loader < <(cat "$work/loader.efi")
piped_loader < <(cat "$work/loader.efi")
printf changed | dd of="$work/loader.efi" bs=1 seek=900 conv=notrunc status=none
piped_loader < <(cat "$work/loader.efi") 2>"$work/stderr" && fail "another loader through the pipe"
contains "$(cat "$work/stderr")" 'other bytes'
