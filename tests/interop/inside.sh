#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# ls, cat and extract against those who made the images: what mke2fs, mkfs.fat with mcopy, and xorriso put into
# an image comes out as debugfs, mtools, xorriso and bsdtar say; as root and as an ordinary user. Nothing lands
# outside the directory that is extracted to, even while somebody replaces its directories by symlinks.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"
export TZ=UTC

quietly() { "$@" >"$work/output" 2>&1 || fail "$*: $(tail -n 20 "$work/output")"; }

# As a user who is not root; everything of this test is theirs to read.
as_user=()
if ((EUID == 0)); then as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all); fi
chmod 755 "$work"
mkdir -m 777 "$work/theirs"

# extracted SOURCE DIR [ARGUMENT...]: must succeed without a word of trouble. Only root can give files away.
extracted() {
  local from=$1 to=$2
  shift 2
  "$MKVIRTFS" extract "$from" "$to" "$@" >"$work/out" 2>"$work/err" || fail "extract $from: $(cat "$work/err")"
  is_root || sed -i '/have not the owner that the source says/d' "$work/err"
  [[ ! -s $work/err ]] || fail "extract $from said: $(cat "$work/err")"
}

# all_by_cat SOURCE DIR [ARGUMENT...]: what `ls` lists and `cat` prints is what lies in DIR.
all_by_cat() {
  local source=$1 name
  (cd "$2" && find . -mindepth 1 -printf '%P\n' | sort) >"$work/their-names"
  "$MKVIRTFS" ls -R "$source" "${@:3}" | sort >"$work/our-names"
  same "$work/our-names" "$work/their-names"
  while read -r name; do
    "$MKVIRTFS" cat "$source:/$name" | cmp - "$2/$name" || fail "cat $source:/$name"
  done < <(cd "$2" && find . -type f -printf '%P\n')
}

small_tree "$work/tree"
noise 300000 >"$work/tree/moved"
if is_root; then
  mknod "$work/tree/null" c 1 3
  chown 12:34 "$work/tree/bin/1000"
  chmod 6755 "$work/tree/bin/1000"
else
  skipped "devices and other owners"
fi
setfattr -n user.colour -v blue "$work/tree/noise"
touch -h -d '2024-02-03 04:05:06.789' "$work"/tree/{bin,bin/1000,moved,null,} 2>/dev/null || true

# --- ext: mke2fs -d, debugfs ---------------------------------------------------------------------

for variant in "ext2 1024" "ext3 1024" "ext4 1024" "ext4 4096" "ext4 4096 -I 128" "ext4 1024 -O inline_data"; do
  read -r fs block_bytes options <<<"$variant"
  image=$work/$fs.img
  rm -rf "$image" "$work/ours" "$work/rdump"
  # shellcheck disable=SC2086  # several words
  quietly mke2fs -t "$fs" -b "$block_bytes" $options -d "$work/tree" "$image" 40M
  # What is deleted is in no tree; what is written then lies in pieces.
  quietly debugfs -w -R 'rm /moved' "$image"
  cp --sparse=never "$work/tree/sparse" "$work/pieces"
  quietly debugfs -w -R "write $work/pieces pieces" "$image"
  extracted "$image" "$work/ours"
  mkdir "$work/rdump"
  quietly debugfs -R "rdump / $work/rdump" "$image"
  rm -f "$work/rdump/null"
  # Of inline data it writes all 60 bytes that an inode has room for: what the file has of them, its size says.
  [[ $options != *inline_data* ]] || truncate -s 0 "$work/rdump/bin/0"
  [[ $options != *inline_data* ]] || truncate -s 1 "$work/rdump/bin/1"
  # rdump restores no devices.
  [[ ! -e $work/ours/null ]] || { [[ $(stat -c '%F %t,%T' "$work/ours/null") == 'character special file 1,3' ]] || fail "null"; rm "$work/ours/null"; }
  diff -r --no-dereference "$work/ours" "$work/rdump" || fail "$variant: not what rdump gives"
  # All metadata, by a reader of debugfs's words.
  if is_root && [[ $options != *inline_data* ]]; then
    rm -rf "$work/ours"
    extracted "$image" "$work/ours" --exclude=/lost+found
    (cd "$work/ours" && "$MANIFEST" .) >"$work/our-manifest"
    "$here/debugfs_manifest.py" "$image" >"$work/their-manifest"
    same "$work/our-manifest" "$work/their-manifest"
  fi
done
all_by_cat "$image" "$work/rdump" --exclude=/null

# --- FAT: mkfs.fat and mcopy, mtools -------------------------------------------------------------

fat_tree=$work/fat-tree
mkdir -p "$fat_tree/A directory with a long name/deeper" "$fat_tree/empty"
noise 200000 >"$fat_tree/Größe.bin"
cp "$fat_tree/Größe.bin" "$fat_tree/A directory with a long name/deeper/UPPER.TXT"
: >"$fat_tree/nothing"
find "$fat_tree" -exec touch -d '2024-02-03 04:05:06' {} +
for variant in "12 1440" "16 20000" "32 70000"; do
  read -r width kib <<<"$variant"
  image=$work/fat$width.img
  rm -rf "$work/ours" "$work/mtools"
  quietly mkfs.fat -F "$width" -C "$image" "$kib"
  LC_ALL=C.UTF-8 quietly mcopy -s -m -i "$image" "$fat_tree"/* ::
  # A file in pieces: what was freed before it is taken first.
  LC_ALL=C.UTF-8 quietly mdel -i "$image" ::Größe.bin
  LC_ALL=C.UTF-8 quietly mcopy -m -i "$image" "$fat_tree/A directory with a long name/deeper/UPPER.TXT" "$fat_tree/Größe.bin" ::
  extracted "$image" "$work/ours"
  mkdir "$work/mtools"
  LC_ALL=C.UTF-8 quietly mcopy -s -n -m -i "$image" '::*' "$work/mtools"
  diff -r "$work/ours" "$work/mtools" || fail "FAT$width: not what mtools gives"
  (cd "$work/ours" && find . -type f -printf '%p %TY-%Tm-%Td %TT\n' | sort) >"$work/our-times"
  (cd "$work/mtools" && find . -type f -printf '%p %TY-%Tm-%Td %TT\n' | sort) >"$work/their-times"
  same "$work/our-times" "$work/their-times"
  all_by_cat "$image" "$work/mtools"
done

# --- ISO 9660: xorriso, bsdtar -------------------------------------------------------------------

rm -rf "$work/ours"
quietly xorriso -as mkisofs -R -J -o "$work/cd.iso" "$work/tree"
extracted "$work/cd.iso" "$work/ours"
mkdir "$work/bsdtar"
quietly bsdtar -xpf "$work/cd.iso" -C "$work/bsdtar"
diff -r --no-dereference "$work/ours" "$work/bsdtar" || fail "ISO 9660: not what bsdtar gives"
(cd "$work/ours" && find . -mindepth 1 -printf '%p %y %m %U:%G %T@\n' | sort) >"$work/our-times"
(cd "$work/bsdtar" && find . -mindepth 1 -printf '%p %y %m %U:%G %T@\n' | sort) >"$work/their-times"
same "$work/our-times" "$work/their-times"
rm -f "$work/bsdtar/null"
rm -rf "$work/ours"
mkdir "$work/osirrox"
quietly xorriso -osirrox on -indev "$work/cd.iso" -extract / "$work/osirrox"
extracted "$work/cd.iso" "$work/ours"
rm -f "$work"/{ours,osirrox}/null
diff -r --no-dereference "$work/ours" "$work/osirrox" || fail "ISO 9660: not what xorriso gives"

# --- Partitions: sfdisk, sgdisk ------------------------------------------------------------------

# in_partitions TABLE SCRIPT EXT FAT: the images of before lie in the partitions with these numbers, and are read there.
in_partitions() {
  local disk=$work/$1.disk number start
  rm -f "$disk"
  truncate -s 90M "$disk"
  quietly sfdisk -q "$disk" <<<"$2"
  for number in "$3" "$4"; do
    start=$(sfdisk --json "$disk" | python3 -c "
import json, sys
for each in json.load(sys.stdin)['partitiontable']['partitions']:
    if each['node'].endswith('disk$number'): print(each['start'])")
    image=$work/ext3.img
    [[ $number == "$3" ]] || image=$work/fat16.img
    dd if="$image" of="$disk" bs=512 seek="$start" conv=notrunc,sparse status=none
    "$MKVIRTFS" ls -lR "$disk:$number" >"$work/our-names"
    "$MKVIRTFS" ls -lR "$image" >"$work/their-names"
    same "$work/our-names" "$work/their-names"
  done
  "$MKVIRTFS" cat "$disk:$3:/noise" | cmp - "$work/tree/noise" || fail "cat of $1"
  "$MKVIRTFS" ls "$disk:$3//bin" >"$work/our-names"
  contains "$(cat "$work/our-names")" '^4096$'
  fails 1 "has no partition 9; it has $5" "$MKVIRTFS" ls "$disk:9"
  fails 1 "try $disk:NUMBER for one of its partitions $5" "$MKVIRTFS" ls "$disk"
}
in_partitions gpt $'label: gpt\nsize=41M, name=system\nsize=30M, name="a b"' 1 2 '1 \(system\), 2 \(a b\)'
in_partitions mbr $'label: dos\n1: size=1M\n2: size=85M, type=f\n5: size=41M\n6: size=30M' 5 6 '1, 2, 5, 6'
quietly e2label "$work/ext3.img" 'the root'
quietly sgdisk -c 2:boot "$work/gpt.disk"
"$MKVIRTFS" ls "$work/gpt.disk:boot" >"$work/our-names"
"$MKVIRTFS" ls "$work/fat16.img" >"$work/their-names"
same "$work/our-names" "$work/their-names"
dd if="$work/ext3.img" of="$work/gpt.disk" bs=1M seek=1 conv=notrunc status=none
"$MKVIRTFS" cat "$work/gpt.disk:the root:/noise" | cmp - "$work/tree/noise" || fail "cat by label"
# A partition is a source as others are; sectors of 4096 bytes are known.
"$MKVIRTFS" dump --partition "$work/gpt.disk:1,fs=ext4" --table=gpt --sector-size=4096 -o "$work/large.disk" >"$work/out" 2>"$work/err" ||
  fail "dump: $(cat "$work/err")"
"$MKVIRTFS" cat "$work/large.disk:1:/noise" | cmp - "$work/tree/noise" || fail "cat with sectors of 4096 bytes"
# The first copy of the GPT is gone.
dd if=/dev/zero of="$work/gpt.disk" bs=512 seek=1 count=1 conv=notrunc status=none
"$MKVIRTFS" cat "$work/gpt.disk:1:/noise" 2>"$work/err" | cmp - "$work/tree/noise" || fail "cat by the second GPT"
contains "$(cat "$work/err")" 'the GPT at the beginning is missing; its copy at the end is read'

# --- NBD: qemu-nbd -------------------------------------------------------------------------------

quietly qemu-img convert -O qcow2 "$work/mbr.disk" "$work/machine.qcow2"
start qemu-nbd qemu-nbd --read-only --persistent --shared=8 -f qcow2 "$work/machine.qcow2" -k "$work/machine.sock"
machine="nbd+unix:///?socket=$work/machine.sock"
"$MKVIRTFS" ls -lR "$machine#5" >"$work/our-names"
"$MKVIRTFS" ls -lR "$work/mbr.disk:5" >"$work/their-names"
same "$work/our-names" "$work/their-names"
"$MKVIRTFS" cat "$machine#5:/noise" | cmp - "$work/tree/noise" || fail "cat over NBD"
extracted "$machine#6" "$work/from-nbd"
extracted "$work/mbr.disk:6" "$work/from-file"
diff -r "$work/from-nbd" "$work/from-file" || fail "extract over NBD"
fails 1 "has no partition 9; it has 1, 2, 5, 6" "$MKVIRTFS" ls "$machine#9"
fails 1 "try nbd.*#NUMBER for one of its partitions 1, 2, 5, 6" "$MKVIRTFS" ls "$machine"
# It is a source as others are: served again, with a file laid over it.
"$MKVIRTFS" dump "$machine#6" --fs=ext4 -o "$work/again.img" >"$work/out" 2>"$work/err" || fail "dump over NBD: $(cat "$work/err")"
"$MKVIRTFS" cat "$work/again.img:/nothing" >"$work/out" || fail "cat of what was dumped"
fails 1 'has no export .nothing.' "$MKVIRTFS" ls "nbd+unix:///nothing?socket=$work/machine.sock"
# A server that answers what was not asked for, or nothing more.
cat >"$work/server.py" <<'END_OF_SERVER'
import socket, struct, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen()
while True:
    client = listener.accept()[0]
    def take(count):
        got = b""
        while len(got) < count:
            more = client.recv(count - len(got))
            if not more: raise EOFError
            got += more
        return got
    try:
        client.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        take(4)
        _, option, length = struct.unpack(">8sII", take(16))
        take(length)
        reply = lambda kind, data: client.sendall(struct.pack(">QIII", 0x3e889045565a9, option, kind, len(data)) + data)
        reply(3, struct.pack(">HQH", 0, 1 << 20, 1))
        reply(1, b"")
        while True:
            _, _, _, cookie, _, length = struct.unpack(">IHHQQI", take(28))
            if sys.argv[1] == "cookie": cookie += 1
            client.sendall(struct.pack(">IIQ", 0x67446698, 5 if sys.argv[1] == "error" else 0, cookie))
            if sys.argv[1] == "ends": client.close()
            client.sendall(bytes(length))
    except (EOFError, OSError):
        pass
END_OF_SERVER
for trouble in cookie error ends; do
  start "$trouble" python3 "$work/server.py" "$trouble" "$work/$trouble.sock"
done
fails 1 'the server breaks the protocol: an answer to nothing' "$MKVIRTFS" ls "nbd+unix:///?socket=$work/cookie.sock"
fails 1 'the server cannot read [0-9]+ bytes at [0-9]+: Input/output error' "$MKVIRTFS" ls "nbd+unix:///?socket=$work/error.sock"
fails 1 'the server closed the connection' "$MKVIRTFS" ls "nbd+unix:///?socket=$work/ends.sock"

# --- An ordinary user ----------------------------------------------------------------------------

chmod 644 "$work"/*.img "$work/cd.iso"
status=0
"${as_user[@]}" "$MKVIRTFS" extract "$work/ext3.img" "$work/theirs/out" >"$work/out" 2>"$work/err" || status=$?
if is_root; then
  # The device cannot be made, the set-ID bits are not for this owner: both are said, and owners are counted.
  equal "$status" 1 "exit status of an ordinary user"
  contains "$(cat "$work/err")" "null: cannot be made: Operation not permitted"
  contains "$(cat "$work/err")" "bin/1000: its set-ID bits are not restored"
  contains "$(cat "$work/err")" "[0-9]+ entries have not the owner that the source says: only root can give files away"
  [[ $(stat -c '%u:%g %a' "$work/theirs/out/bin/1000") == '65534:65534 755' ]] || fail "bin/1000 of an ordinary user"
  equal "$(wc -l <"$work/err")" 3 "lines for an ordinary user: $(cat "$work/err")"
fi
rm -rf "$work/theirs/out/lost+found"
(cd "$work/tree" && find . ! -name null ! -name moved -printf '%p %y %l\n' | sort) >"$work/source-names"
(cd "$work/theirs/out" && find . ! -name pieces -printf '%p %y %l\n' | sort) >"$work/their-names"
same "$work/their-names" "$work/source-names"
for name in noise bin/1000 'with blank/deeper/same noise'; do same "$work/tree/$name" "$work/theirs/out/$name"; done

# --- Nothing lands elsewhere ---------------------------------------------------------------------

mkdir -p "$work/many" "$work/elsewhere"
python3 - "$work/many" <<'END_OF_TREE'
import os, sys
for directory in range(20):
    os.makedirs(f"{sys.argv[1]}/d{directory}/below")
    for number in range(300):
        with open(f"{sys.argv[1]}/d{directory}/below/{number}", "w") as file:
            file.write("x")
END_OF_TREE
quietly mke2fs -t ext4 -N 20000 -d "$work/many" "$work/many.img" 60M
# Symlinks are there before.
mkdir -p "$work/target"
ln -s "$work/elsewhere" "$work/target/d3"
status=0
"$MKVIRTFS" extract "$work/many.img" "$work/target" >"$work/out" 2>"$work/err" || status=$?
equal "$status" 1 "exit status beside a symlink"
contains "$(cat "$work/err")" "d3: cannot be made, and all below it is left out: File exists"
equal "$(find "$work/elsewhere" -mindepth 1 | wc -l)" 0 "entries behind the symlink"
# Directories are replaced by symlinks while they are written to.
rm -rf "$work/target"
python3 - "$work/target" "$work/elsewhere" "$work/swaps" <<'END_OF_ATTACK' &
import os, sys
target, elsewhere, report = sys.argv[1:]
swaps = 0
parent = os.getppid()
while not os.path.exists(report + ".stop") and os.getppid() == parent:
    for name in (f"{target}/d{number}" for number in range(20)):
        try:
            os.rename(name, name + ".away")
            os.symlink(elsewhere, name)
            os.unlink(name)
            os.rename(name + ".away", name)
            swaps += 1
        except OSError:
            continue
with open(report, "w") as file:
    file.write(str(swaps))
END_OF_ATTACK
attacker=$!
mkdir "$work/elsewhere/below"
for ((round = 0; round < 3; ++round)); do
  "$MKVIRTFS" extract "$work/many.img" "$work/target" >"$work/out" 2>"$work/err" || true
  find "$work/target" -mindepth 1 -maxdepth 1 ! -name '*.away' -exec rm -rf {} + || true
done
touch "$work/swaps.stop"
wait "$attacker"
(($(cat "$work/swaps") > 100)) || fail "the attack took place $(cat "$work/swaps") times"
equal "$(find "$work/elsewhere" -mindepth 1 | wc -l)" 1 "entries behind the symlinks"
