#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Archives as sources: what bsdtar unpacks of each is what a client finds in the ext4 image of it, in
# names, metadata and bytes; whatever packed it, however it is compressed.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

export XDG_CACHE_HOME=$work/cache

# What every format here keeps.
mkdir -p "$work/plain"/{bin,empty,"with blank/deeper"}
for size in 0 1 511 512 513 4096 70000; do
  head -c "$size" < <(yes "line of $size" || true) >"$work/plain/bin/$size"
done
noise 3000000 >"$work/plain/noise"
head -c 6000000 < <(yes 'compresses well' || true) >"$work/plain/text"
chmod 4751 "$work/plain/bin/1"
chmod 1777 "$work/plain/empty"
long=$(printf 'n%.0s' {1..120})
mkdir "$work/plain/$long"
echo deep >"$work/plain/$long/$long"
ln -s ../noise "$work/plain/bin/link"
ln -s "$long/$long" "$work/plain/long link"
chown 1000:100 "$work/plain/bin/513" 2>/dev/null || skipped "files of other users"
find "$work/plain" -exec touch -h -d '2024-02-03 04:05:06' {} +

# And what only tar does.
cp -a "$work/plain" "$work/full"
ln "$work/full/noise" "$work/full/with blank/deeper/same noise"
truncate -s 20M "$work/full/sparse"
printf 'in the middle' | dd of="$work/full/sparse" bs=1 seek=10000000 conv=notrunc status=none
printf 'at the end' | dd of="$work/full/sparse" bs=1 seek=20971510 conv=notrunc status=none
truncate -s 300M "$work/full/all hole"
echo x >"$work/full/"$'not \xff\xfe utf-8'
printf 'noted' >"$work/full/noted"
setfattr -n user.note -v "some value" "$work/full/noted"
setfattr -n user.empty "$work/full/bin"
setfacl -m u:1234:r--,g:4321:rwx "$work/full/noted"
setfacl -d -m u:1234:rwx "$work/full/empty"
mkfifo "$work/full/fifo"
if is_root; then
  mknod "$work/full/null" c 1 3
  mknod "$work/full/disk" b 259 70000
  chown 70000:4000000000 "$work/full/noted"
else
  skipped "device nodes"
  skipped "files of ids that are not subordinate"
fi
find "$work/full" -depth -exec touch -h -d '2031-02-03 04:05:06.123456789' {} +

# as_tree DIRECTORY ARCHIVE [OPTION...]: serves the archive, and compares what a client reads with the directory.
as_tree() {
  local directory=$1 archive=$2
  shift 2
  "$MANIFEST" "$directory" | grep -v '^\. ' >"$work/expected"
  start_server "$archive" --fs=ext4 -U "$work/socket" "$@"
  rm -f "$work/image"
  nbdcopy --connections=4 "$uri" "$work/image"
  stop_server
  e2fsck -fn "$work/image" >"$work/fsck" 2>&1 || fail "$archive: $(cat "$work/fsck")"
  "$here/debugfs_manifest.py" "$work/image" | grep -v '^\. ' >"$work/found"
  [[ -s $work/found ]] || fail "$archive: nothing was found"
  diff "$work/expected" "$work/found" >"$work/diff" || fail "$archive: $(head -n 20 "$work/diff")"
}

# as_unpacked ARCHIVE: the same with what bsdtar unpacks.
as_unpacked() {
  local archive=$1
  rm -rf "$work/unpacked"
  mkdir "$work/unpacked"
  # It complains of names that are not UTF-8, and unpacks them; what is missing shows below.
  LC_ALL=C.UTF-8 bsdtar -xpf "$archive" -C "$work/unpacked" --acls --xattrs 2>/dev/null || true
  # Not every packer names the root itself.
  touch -h -d @0 "$work/unpacked"
  chmod 755 "$work/unpacked"
  as_tree "$work/unpacked" "$archive"
}

tree_id() { "$MKVIRTFS" inspect --fs=ext4 --json "$@" 2>/dev/null | grep '"tree_id"'; }
fact() { "$MKVIRTFS" inspect --fs=ext4 --json "$1" 2>/dev/null | grep -o "\"$2\": [^,]*"; }

cd "$work/full"
bsdtar -cf "$work/full.tar" --format=pax . 2>/dev/null
cd "$work"
whole=$(tree_id full)
for compressor in cat gzip xz 'xz --block-size=4MiB' zstd bzip2 lz4 'xz --format=lzma' \
  'compress -cf' 'compress -cf -b 10'; do
  # shellcheck disable=SC2086  # words
  $compressor <full.tar >packed
  [[ $compressor != lz4 ]] || lz4 -q <full.tar >packed
  as_unpacked "$work/packed"
  equal "$(tree_id packed)" "$whole" "tree id of full.tar by $compressor"
  if [[ $compressor == cat ]]; then
    equal "$(fact packed access)" '"access": "direct"'
  else
    contains "$(fact packed access)" 'indexed|spooled'
  fi
done
rm -rf packed

cd "$work/full"
tar -cf ../gnu.tar --format=posix --sparse --xattrs '--xattrs-include=*' --acls --numeric-owner .
tar -czf ../old.tar.gz --format=gnu --sparse .
cd "$work/plain"
tar -cf ../ustar.tar --format=ustar --exclude='n*' --exclude='long link' .
find . | cpio -o --quiet -H newc >../newc.cpio
find . | cpio -o --quiet -H odc >../odc.cpio
zip -qry ../deflated.zip .
zip -qry0 ../stored.zip .
xorriso -as mkisofs -quiet -R -o ../plain.iso . 2>/dev/null
7z a -bd ../solid.7z . >/dev/null
bsdtar -cf ../plain.xar --format=xar .
cd "$work"
for archive in gnu.tar old.tar.gz ustar.tar newc.cpio odc.cpio deflated.zip stored.zip plain.iso; do
  as_unpacked "$work/$archive"
done
# It has no owners: those of files that bsdtar unpacks are the user's, and only root's keep set-user-ID,
# also in a user name space.
if ((EUID == 0)); then
  as_unpacked "$work/solid.7z"
else
  as_tree "$work/plain" "$work/solid.7z" --owner="$(id -u):$(id -g)"
fi
equal "$(tree_id gnu.tar)" "$whole" "tree id of what GNU tar packed"
for archive in newc.cpio odc.cpio plain.iso; do
  equal "$(tree_id "$archive")" "$(tree_id plain)" "tree id of $archive"
done
equal "$(fact stored.zip access)" '"access": "direct"'
equal "$(fact deflated.zip access)" '"access": "indexed"'
equal "$(fact solid.7z access)" '"access": "spooled"'

# With the layout of a directory, the image of one.
"$MKVIRTFS" dump full --fs=ext4 -o directory.img >/dev/null
for archive in full.tar old.tar.gz gnu.tar; do
  [[ $archive != old.tar.gz ]] || continue
  "$MKVIRTFS" dump "$archive" --fs=ext4 --layout=name -o archive.img --force >/dev/null
  cmp directory.img archive.img || fail "$archive: not the image of the directory"
done

# Four clients at once, anywhere, against a full extraction.
gzip <full.tar >full.tar.gz
start_server full.tar.gz --fs=ext4 --layout=name -U "$work/socket" --cache-memory=2M
clients=()
for seed in 1 2 3 4; do
  python3 - "$uri" directory.img "$seed" <<'PYTHON' &
import os, random, sys
import nbd
uri, image, seed = sys.argv[1:]
handle = nbd.NBD()
handle.connect_uri(uri)
chosen = random.Random(int(seed))
file = os.open(image, os.O_RDONLY)
size = handle.get_size()
# Where there is data, for the most part.
data, at = [], 0
while at < size:
    try:
        start = os.lseek(file, at, os.SEEK_DATA)
    except OSError:
        break
    at = os.lseek(file, start, os.SEEK_HOLE)
    data.append((start, at))
for _ in range(300):
    start, end = chosen.choice(data)
    offset = chosen.randrange(start, end) if chosen.random() < 0.9 else chosen.randrange(size)
    length = min(chosen.choice([512, 4096, 65536, 1 << 20]), size - offset)
    if bytes(handle.pread(length, offset)) != os.pread(file, length, offset):
        sys.exit(f"{length} bytes at {offset} are not what was packed")
PYTHON
  clients+=($!)
done
for client in "${clients[@]}"; do wait "$client" || fail "a client read something else"; done
stop_server

# A second time nothing has to be unpacked; and from a pipe it can be read once.
equal "$(fact full.tar.gz kept_index)" '"kept_index": true'
equal "$("$MKVIRTFS" inspect --fs=ext4 --json - <full.tar.gz 2>/dev/null | grep '"tree_id"')" "$whole" \
  "tree id from standard input"
cat full.tar | "$MKVIRTFS" dump - --fs=ext4 --layout=name -o archive.img --force >/dev/null 2>stderr
cmp directory.img archive.img || fail "not the same from a pipe"
contains "$(cat stderr)" 'spool'

# Neither where the index cannot be kept: its points are made again while the image is read.
mkdir large
for file in 1 2 3 4 5; do seq "${file}000000" "${file}999999" >"large/$file"; done
tar -cf large.tar -C large .
"$MKVIRTFS" dump large.tar --fs=ext4 -o large.img >/dev/null
for compressor in 'zstd -q -c' 'zstd -q -c -1 --long=24' 'lz4 -q -c' 'xz -0 -T1 -c' 'compress -cf'; do
  # shellcheck disable=SC2086  # words
  $compressor large.tar >packed
  first=$(fact packed access) spool=$(fact packed spool_bytes)
  equal "$(fact packed kept_index)" '"kept_index": true' "$compressor"
  equal "$(fact packed access) $(fact packed spool_bytes)" "$first $spool" "$compressor"
  start_server packed --fs=ext4 -U "$work/socket"
  nbdcopy --connections=4 "$uri" "$work/image"
  stop_server
  cmp large.img "$work/image" || fail "$compressor: not the same the second time"
  [[ $spool == *' 0' ]] || contains "$(cat "$server_log")" 'spool'
done
fails 1 'spool-limit' "$MKVIRTFS" inspect --spool-limit=1M packed
rm -rf large large.* packed

# An initramfs of several segments: GNU cpio unpacks each, the kernel all of them, and so does the image.
mkdir early late both
echo microcode >early/one && echo early >early/same
echo root >late/two && echo late >late/same
for part in early late; do (cd $part && find . | cpio -o --quiet -H newc >../$part.cpio); done
for compressor in 'gzip -c' 'zstd -q -c' 'lz4 -q -l -c' 'xz --check=crc32 -c'; do
  # shellcheck disable=SC2086  # words
  { cat early.cpio && $compressor late.cpio; } >initramfs
  "$MKVIRTFS" dump initramfs --fs=ext4 -o initramfs.img --force >/dev/null 2>stderr
  ! grep 'left alone' stderr || fail "$compressor: not all of an initramfs"
  for file in one two same; do debugfs -R "cat $file" initramfs.img 2>/dev/null; done >found
  equal "$(cat found)" $'microcode\nroot\nlate' "$compressor"
done
cat early.cpio late.cpio | (cd both && cpio -i --quiet && cat same) >found
equal "$(cat found)" early 'GNU cpio reads one'

# What is behind an end is read when it is asked for, and reported in any case.
tar -cf one.tar -C early . && tar -cf two.tar -C late . && cat one.tar two.tar >both.tar
"$MKVIRTFS" dump both.tar --fs=ext4 -o both.img >/dev/null 2>stderr
contains "$(cat stderr)" '--ignore-zeros'
"$MKVIRTFS" dump both.tar --fs=ext4 --ignore-zeros -o both.img --force >/dev/null 2>stderr
! grep 'left alone' stderr || fail "not all of two tars"
equal "$(debugfs -R 'cat same' both.img 2>/dev/null)" late
for compressor in gzip xz 'zstd -q' 'lz4 -q'; do
  # shellcheck disable=SC2086  # words
  { $compressor -c one.tar && echo junk; } >junk.packed
  for _ in 1 2; do
    "$MKVIRTFS" dump junk.packed --fs=ext4 -o junk.img --force >/dev/null 2>stderr
    contains "$(cat stderr)" 'is left alone'
    equal "$(debugfs -R 'cat same' junk.img 2>/dev/null)" early
  done
done

# Records of pax global headers.
tar -cf global.tar --format=posix --pax-option=uid=4242,comment=x -C early .
"$MKVIRTFS" dump global.tar --fs=ext4 -o global.img >/dev/null
contains "$(debugfs -R 'stat one' global.img 2>/dev/null)" 'User: *4242'
tar -cf global.tar --format=posix --pax-option=VENDOR.key=1 -C early .
fails 1 'VENDOR.key=1' "$MKVIRTFS" inspect global.tar
"$MKVIRTFS" inspect --pax-globals=ignore global.tar >/dev/null 2>stderr
contains "$(cat stderr)" 'VENDOR.key'
rm -rf early late both ./*.cpio

# zisofs is unpacked; what nobody here unpacks is refused by name.
zisofs() {
  rm -f "$1"
  xorriso -outdev "$1" -zisofs "level=6:$2" -map plain / -set_filter_r --zisofs / -- -commit \
    >"$work/xorriso" 2>&1 || fail "$1: $(tail -n 5 "$work/xorriso")"
}
zisofs zisofs.iso block_size=32k
! "$MKVIRTFS" inspect zisofs.iso >/dev/null 2>stderr || fail "a zisofs file is read out of a disk image"
contains "$(tail -n 1 stderr)" 'the record of /text: it is compressed \(zisofs\) \(3 problems in all\)'
cmp plain/text <("$MKVIRTFS" dump zisofs.iso --source-format=archive --fs=ext4 --cache-dir=none -o zisofs.img >/dev/null 2>&1 &&
  debugfs -R 'cat text' zisofs.img 2>/dev/null) || fail "a zisofs file is not what was packed"
zisofs zisofs-2.iso version_2=on
fails 1 'zisofs-2.iso: member .*: is stored in a way that cannot be read here' "$MKVIRTFS" inspect --source-format=archive zisofs-2.iso
# Out of a pipe or a compression it is an archive, with the same tree.
equal "$(fact plain.iso source_kind)" '"source_kind": "disk image"'
gzip -k plain.iso
equal "$(tree_id plain.iso.gz)" "$(tree_id plain.iso)" "tree id of a compressed ISO"
equal "$(tree_id - <plain.iso)" "$(tree_id plain.iso)" "tree id of an ISO out of a pipe"

# What cannot be is reported in one line.
fails 1 'reader-memory' "$MKVIRTFS" inspect --reader-memory=8M solid.7z
seq 50000 >numbers
fails 1 'not a directory or a supported archive' "$MKVIRTFS" inspect numbers
fails 1 'spool' "$MKVIRTFS" inspect --spool-dir=none solid.7z
fails 1 'max-entries' "$MKVIRTFS" inspect --max-entries=3 full.tar
fails 1 'max-size' "$MKVIRTFS" inspect --max-size=1M stored.zip
head -c 100M /dev/zero | gzip >bomb.gz
fails 1 'max-ratio' "$MKVIRTFS" inspect --max-ratio=50 bomb.gz
fails 1 'spool-limit' "$MKVIRTFS" inspect --spool-limit=1M solid.7z
head -c 3000000 full.tar >cut.tar
fails 1 'cut.tar: member .*, byte [0-9]+: ' "$MKVIRTFS" inspect cut.tar
head -c 2000000 full.tar.gz >cut.tar.gz
fails 1 'cut.tar.gz' "$MKVIRTFS" inspect cut.tar.gz

# An archive that is changed while it is served: errors, never a mixture.
cp full.tar changing.tar
start_server changing.tar --fs=ext4 -U "$work/socket" --on-change=stale
contains "$(cat "$server_log")" 'changing.tar is an archive: once it changes, reads of it are errors, whatever --on-change says$'
nbdcopy "$uri" "$work/image"
printf 'x' | dd of=changing.tar bs=1 seek=2000000 conv=notrunc status=none
! nbdcopy "$uri" "$work/image" 2>/dev/null || fail "a changed archive was read on"
stop_server

# An owner that no file can have is refused, but not before options could say what becomes of it.
python3 - "$work/nobody.tar" <<'PYTHON'
import sys, tarfile
with tarfile.open(sys.argv[1], "w", format=tarfile.GNU_FORMAT) as tar:
    for name, uid in (("f", 4294967295), ("g", 1)):
        info = tarfile.TarInfo(name)
        info.uid = uid
        tar.addfile(info)
PYTHON
fails 1 'member f belongs to 4294967295:0' "$MKVIRTFS" inspect "$work/nobody.tar"
for option in --owner=0:0 --map-uid=4294967295:0 --exclude=f; do
  "$MKVIRTFS" inspect "$work/nobody.tar" "$option" >/dev/null 2>"$work/stderr" || fail "$option: $(cat "$work/stderr")"
done

# A directory of an archive is the image of that directory, with links into it and out of it; and so over
# another source.
mkdir -p sub/rootfs/etc sub/beside
echo etc >sub/rootfs/etc/hosts
echo beside >sub/beside/file
ln sub/beside/file sub/rootfs/linked
ln sub/rootfs/etc/hosts sub/beside/hosts
ln -s ../beside/file sub/rootfs/outward
chmod 750 sub/rootfs
find sub -depth -exec touch -h -d '2031-02-03 04:05:06.123456789' {} +
bsdtar -cf sub.tar --format=pax -C sub . && bsdtar -cf linked.tar --format=pax -C sub beside rootfs
(cd sub && zip -qry ../sub.zip .)
cp -a sub/rootfs alone # without the names beside it
for archive in sub.tar linked.tar; do
  gzip -k "$archive"
  for path in "$archive//rootfs" "$archive.gz//rootfs/" "$archive//./rootfs"; do
    as_tree "$work/alone" "$work/$path"
  done
done
equal "$("$MKVIRTFS" inspect --fs=ext4 --json sub.zip//rootfs/etc 2>/dev/null | grep '"source_file_count"')" '  "source_file_count": 1,'
mkdir lower && echo old >lower/etc
"$MKVIRTFS" dump lower sub.tar//rootfs --fs=ext4 -o over.img >/dev/null
equal "$(debugfs -R 'cat etc/hosts' over.img 2>/dev/null)" etc 'a subtree over a directory'
fails 1 "^mkvirtfs: .*sub.tar holds no directory root$" "$MKVIRTFS" inspect sub.tar//root
fails 1 "sub.tar: rootfs/outward is a symlink to ../beside/file" "$MKVIRTFS" inspect sub.tar//rootfs/outward

# Names of zip archives in an old character set, as bsdtar and Python read them.
python3 - <<'PYTHON'
import zipfile
class Old(zipfile.ZipInfo):
    def _encodeFilenameFlags(self):
        return self.filename.encode(self.charset), 0
for charset, names in {"cp866": ["Привет, мир.txt"], "cp437": ["façade"], "shift_jis": ["表ソ"]}.items():
    with zipfile.ZipFile(charset + ".zip", "w") as archive:
        for name in names + ["plain", "сказано.utf8"]:
            info = zipfile.ZipInfo(name)
            if not name.endswith("utf8"):
                info = Old(name)
                info.charset = charset
            archive.writestr(info, name)
PYTHON
for charset in cp866 cp437 shift_jis; do
  rm -rf by-bsdtar && mkdir by-bsdtar
  LC_ALL=C.UTF-8 bsdtar -xpf "$charset.zip" --options "hdrcharset=$charset" -C by-bsdtar
  equal "$(PYTHONUTF8=1 python3 -c 'import sys, zipfile
for name in sorted(zipfile.ZipFile(sys.argv[1], metadata_encoding=sys.argv[2]).namelist()): print(name)' "$charset.zip" "$charset")" \
    "$(ls by-bsdtar)" "Python and bsdtar on $charset"
  as_tree "$work/by-bsdtar" "$work/$charset.zip" --charset="$charset"
done
# Without it the bytes stay; and what is not of the set is refused.
"$MKVIRTFS" dump cp866.zip --fs=ext4 -o bytes.img >/dev/null 2>&1
debugfs -R 'ls -p /' bytes.img 2>/dev/null | grep -qa $'\x8f\xe0' || fail "the bytes of a name are not as they were"
fails 1 'cp437.zip: .*byte [0-9]+: its name is not ASCII' "$MKVIRTFS" inspect cp437.zip --charset=ASCII
fails 2 'charset=klingon: no character set that this host knows' "$MKVIRTFS" inspect cp437.zip --charset=klingon
