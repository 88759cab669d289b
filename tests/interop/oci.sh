#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Container images: what umoci unpacks is what our image of the same layers shows, in every form in which
# skopeo writes an image.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

tree_id() { "$MKVIRTFS" inspect --json "$@" | python3 -c 'import json, sys; print(json.load(sys.stdin)["tree_id"])'; }
quietly() { "$@" >"$work/output" 2>&1 || fail "$*: $(cat "$work/output")"; }

mkdir "$work/layers"
python3 "$here/oci_layers.py" "$work/layers"
quietly umoci init --layout "$work/layout"
quietly umoci new --image "$work/layout:app"
for number in 1 2 3; do
  quietly umoci raw add-layer --image "$work/layout:app" "$work/layers/$number.tar"
done

# Users other than root cannot give files away, and umoci notes in attributes what it could not do: then all belongs
# to one user on both sides, and has none.
own=() rootless=()
is_root || own=(--owner=0:0 --no-xattrs) rootless=(--rootless)
quietly umoci raw unpack "${rootless[@]}" --image "$work/layout:app" "$work/unpacked"
# Of a whiteout that comes behind the directory it is for, umoci keeps the time at which it removed things.
touch -d @1500002001 "$work/unpacked/opt/app"
wanted=$(tree_id "${own[@]}" "$work/unpacked")

quietly skopeo --insecure-policy copy "oci:$work/layout:app" "oci-archive:$work/oci.tar:app"
quietly skopeo --insecure-policy copy "oci:$work/layout:app" "docker-archive:$work/docker.tar:app:latest"
quietly skopeo --insecure-policy copy --dest-compress --dest-compress-format=zstd "oci:$work/layout:app" "oci:$work/zstd:app"
quietly gzip -k "$work/docker.tar"
for image in "oci:$work/layout:app" "oci:$work/layout" "oci-archive:$work/oci.tar:app" "oci:$work/oci.tar" "oci:$work/zstd" \
  "docker-archive:$work/docker.tar:app" "docker-archive:$work/docker.tar" "docker-archive:$work/docker.tar.gz:app:latest"; do
  equal "$(tree_id "${own[@]}" "$image")" "$wanted" "the tree of $image"
done

equal "$(tree_id "${own[@]}" docker-archive:-:app <"$work/docker.tar.gz" 2>"$work/stderr")" "$wanted" "the tree from standard input"
contains "$(cat "$work/stderr")" 'in a spool'

# As ext4, to debugfs and e2fsck. Without root the owners differ, as far as umoci could not give files away.
owners() { if is_root; then cat; else sed 's/ owner=[0-9:]*//; s/ user.rootless.*//'; fi; }
"$MANIFEST" "$work/unpacked" | owners >"$work/expected"
for image in "oci:$work/layout:app" "docker-archive:$work/docker.tar"; do
  "$MKVIRTFS" dump "$image" --fs=ext4 "${own[@]}" --free=8M --force -o "$work/image" 2>"$work/stderr" ||
    fail "dump $image: $(cat "$work/stderr")"
  e2fsck -fn "$work/image" >"$work/e2fsck" 2>&1 || fail "e2fsck: $(cat "$work/e2fsck")"
  python3 "$here/debugfs_manifest.py" "$work/image" | owners >"$work/found"
  diff "$work/expected" "$work/found" >"$work/difference" || fail "$image shows other things: $(head "$work/difference")"
done
! grep -aq '\.wh\.' "$work/image" || fail "a whiteout is in the image"

# umoci ends the layers that it makes itself without the padding of the last file.
printf 'not a multiple of 512' >"$work/new"
quietly skopeo --insecure-policy copy "oci:$work/layout:app" "oci:$work/inserted:app"
quietly umoci insert --image "$work/inserted:app" "$work/new" /srv/new
quietly umoci insert --image "$work/inserted:app" --whiteout /opt/app
quietly umoci raw unpack "${rootless[@]}" --image "$work/inserted:app" "$work/unpacked-inserted"
[[ ! -e $work/unpacked-inserted/opt/app && -e $work/unpacked-inserted/srv/new ]] || fail "umoci inserted nothing"
"$MKVIRTFS" dump "oci:$work/inserted:app" --fs=ext4 "${own[@]}" --free=8M --force -o "$work/image" 2>/dev/null
# Directories have the times at which umoci was at work in them.
untimed() { owners | sed '/ mode=04/s/ mtime=[^ ]*//'; }
"$MANIFEST" "$work/unpacked-inserted" | untimed >"$work/expected"
python3 "$here/debugfs_manifest.py" "$work/image" | untimed >"$work/found"
diff "$work/expected" "$work/found" >"$work/difference" || fail "inserted layers show other things: $(head "$work/difference")"

# An implied parent follows the symlinks of the layers below, an explicit one replaces them: as umoci has it.
mkdir -p "$work/links/"{1/usr/lib,2/{lib,abs,out/lib,gone},3/abs}
(cd "$work/links/1" && echo old >usr/lib/old && echo libc >usr/lib/libc &&
  ln -s usr/lib lib && ln -s /usr/lib abs && ln -s ../../usr out && ln -s /run/gone gone)
(cd "$work/links/2" && touch lib/foo abs/bar out/lib/baz gone/x lib/.wh.old abs/.wh.never)
echo new >"$work/links/3/abs/new"
tar -C "$work/links/1" -cf "$work/links/1.tar" .
tar -C "$work/links/2" -cf "$work/links/2.tar" --no-recursion lib/foo abs/bar out/lib/baz gone/x lib/.wh.old abs/.wh.never
tar -C "$work/links/3" -cf "$work/links/3.tar" abs
quietly umoci new --image "$work/layout:links"
for number in 1 2 3; do quietly umoci raw add-layer --image "$work/layout:links" "$work/links/$number.tar"; done
quietly umoci raw unpack "${rootless[@]}" --image "$work/layout:links" "$work/unpacked-links"
"$MKVIRTFS" dump "oci:$work/layout:links" --fs=ext4 "${own[@]}" --free=8M --force -o "$work/image" 2>"$work/stderr" ||
  fail "dump links: $(cat "$work/stderr")"
"$MANIFEST" "$work/unpacked-links" | untimed >"$work/expected"
python3 "$here/debugfs_manifest.py" "$work/image" | untimed >"$work/found"
diff "$work/expected" "$work/found" >"$work/difference" || fail "umoci leads symlinks elsewhere: $(head "$work/difference")"
[[ -e $work/unpacked-links/usr/lib/foo && -e $work/unpacked-links/run/gone/x ]] || fail "umoci follows no symlinks"
fails 1 'lies below lib, which is a symlink to usr/lib' "$MKVIRTFS" inspect --layer-symlinks=error "oci:$work/layout:links"

# An image without layers is an empty root.
quietly umoci new --image "$work/layout:empty"
equal "$("$MKVIRTFS" inspect --json "oci:$work/layout:empty" | python3 -c 'import json, sys; print(json.load(sys.stdin)["sources"][0]["layer_count"])')" 0 \
  "layers of an empty image"

# umoci refuses a layer that unpacks to something else than the configuration says, and so do we.
python3 - "$work/layout" "$work/wrong" <<'PYTHON'
import hashlib, json, os, shutil, sys
source, wrong = sys.argv[1:]
shutil.copytree(source, wrong)
def blob(descriptor):
    return os.path.join(wrong, "blobs", *descriptor["digest"].split(":"))
def put(document):
    text = json.dumps(document).encode()
    digest = hashlib.sha256(text).hexdigest()
    with open(os.path.join(wrong, "blobs/sha256", digest), "wb") as file:
        file.write(text)
    return {"digest": "sha256:" + digest, "size": len(text)}
index = json.load(open(wrong + "/index.json"))
index["manifests"] = [m for m in index["manifests"] if m["annotations"]["org.opencontainers.image.ref.name"] == "app"]
manifest = json.load(open(blob(index["manifests"][0])))
config = json.load(open(blob(manifest["config"])))
config["rootfs"]["diff_ids"][1] = "sha256:" + "0" * 64
manifest["config"].update(put(config))
index["manifests"][0].update(put(manifest))
json.dump(index, open(wrong + "/index.json", "w"))
PYTHON
! umoci raw unpack "${rootless[@]}" --image "$work/wrong:app" "$work/unpacked-wrong" >"$work/output" 2>&1 ||
  fail "umoci takes a wrong diff_id"
fails 1 'diff_ids' "$MKVIRTFS" inspect "oci:$work/wrong:app"

# The same image again is the same bytes, over NBD and under a name, too.
"$MKVIRTFS" dump "oci:$work/layout:app" --fs=ext4 --free=8M --force -o "$work/image" 2>/dev/null
start_server "app=oci:$work/layout:app,fs=ext4,free=8M"
nbdcopy "$uri" "$work/copy"
stop_server
cmp "$work/image" "$work/copy" || fail "what is served is not what is dumped"

# A directory laid over an image.
mkdir -p "$work/over/etc"
echo over >"$work/over/etc/hosts"
"$MKVIRTFS" dump "oci:$work/layout:app" "$work/over" --fs=ext4 --free=8M --force -o "$work/image" 2>/dev/null
equal "$(debugfs -R 'cat /etc/hosts' "$work/image" 2>/dev/null)" over "a file of the directory"
equal "$(debugfs -R 'cat /usr/lib/large' "$work/image" 2>/dev/null)" replaced "a file of the image"

"$MKVIRTFS" inspect "oci:$work/layout:app" >"$work/facts"
contains "$(cat "$work/facts")" 'layer count +3$'
contains "$(cat "$work/facts")" 'image id +sha256:'

# Without a prefix a tar is a tar, and a directory a directory: with a hint.
"$MKVIRTFS" inspect "$work/docker.tar" 2>"$work/stderr" >"$work/facts"
contains "$(cat "$work/stderr")" "docker-archive:$work/docker.tar shows its root file system"
"$MKVIRTFS" inspect "$work/layout" 2>"$work/stderr" >"$work/facts"
contains "$(cat "$work/stderr")" "oci:$work/layout shows its root file system"

# What is wrong is reported in one line.
fails 2 'it has app' "$MKVIRTFS" inspect "oci:$work/layout:other"
fails 2 'no image for|is for' "$MKVIRTFS" inspect --platform=plan9/mips "oci:$work/layout:app"
fails 2 'no platform' "$MKVIRTFS" inspect --platform=linux "oci:$work/layout:app"
fails 1 'try docker-archive:' "$MKVIRTFS" inspect "oci:$work/docker.tar"
fails 1 'try oci:' "$MKVIRTFS" inspect "docker-archive:$work/oci.tar"
read -r size layer < <(find "$work/layout/blobs" -type f -printf '%s %p\n' | sort -n | tail -n 1)
chmod u+w "$layer"
printf '\1' | dd of="$layer" bs=1 seek=$((size / 2)) conv=notrunc status=none
fails 1 'is damaged: it has the digest' "$MKVIRTFS" inspect "oci:$work/layout:app"
