#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Law 5 over the wire: a file that is no longer what was scanned is an error and one line in the log,
# or what --on-change says; everything else is served on.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

kinds=(grown truncated rewritten replaced deleted)
make_tree() {
  rm -rf "$work/tree"
  mkdir "$work/tree"
  local kind
  # Each has its own byte, so that a mixture would show.
  for kind in "${kinds[@]}" steady; do
    head -c 100000 /dev/zero | tr '\0' "${kind:0:1}" >"$work/tree/$kind"
  done
  touch -d '2024-01-01' "$work"/tree/* "$work/tree"
}
change_all() {
  cd "$work/tree"
  echo more >>grown
  truncate -s 50000 truncated
  printf X | dd of=rewritten bs=1 seek=70000 conv=notrunc status=none
  cp -a replaced other && echo other | dd of=other conv=notrunc status=none && mv other replaced
  rm deleted
  cd "$OLDPWD"
}

# Where the files lie is taken from a foreign reader.
make_tree
"$MKVIRTFS" dump "$work/tree" --fs=ext4 -o "$work/image"
declare -A offset
for kind in "${kinds[@]}" steady; do
  offset[$kind]=$(($(debugfs -R "bmap $kind 0" "$work/image" 2>/dev/null) * 4096))
  equal "$(dd if="$work/image" bs=1 skip="${offset[$kind]}" count=1 status=none)" "${kind:0:1}" "$kind"
done

read_at() {  # prints the bytes, or the name of the error
  python3 - "$uri" "$1" "$2" <<'END'
import errno, sys
import nbd
handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
try:
    sys.stdout.buffer.write(handle.pread(int(sys.argv[3]), int(sys.argv[2])))
except nbd.Error as error:
    print(errno.errorcode[error.errnum])
END
}

for read_before in no yes; do
  make_tree
  start_server "$work/tree" --fs=ext4 -U "$work/sock"
  if [[ $read_before == yes ]]; then nbdcopy "$uri" - | cmp - "$work/image" || fail "before the change"; fi
  change_all
  for kind in "${kinds[@]}"; do
    equal "$(read_at "${offset[$kind]}" 4096)" EIO "$kind, read before: $read_before"
    equal "$(read_at "${offset[$kind]}" 4096)" EIO "$kind, once more"
    equal "$(grep -c "$kind changed" "$server_log")" 1 "lines that name $kind"
  done
  # A large read goes another way through the server (sendfile).
  equal "$(read_at "${offset[rewritten]}" 98304)" EIO "a large read"
  equal "$(read_at "${offset[steady]}" 100000 | tr -d s | wc -c)" 0 "the file that did not change"
  equal "$(read_at 1080 2 | od -An -tx1 | tr -d ' ')" 53ef "the superblock"
  kill -0 "$server_pid" || fail "the server ended"
  stop_server
done

make_tree
start_server "$work/tree" --fs=ext4 -U "$work/sock" --on-change=zero
change_all
for kind in "${kinds[@]}"; do
  equal "$(read_at "${offset[$kind]}" 4096 | tr -d '\0' | wc -c)" 0 "--on-change=zero, $kind"
done
equal "$(read_at "${offset[steady]}" 4096 | tr -d s | wc -c)" 0 "--on-change=zero, steady"
stop_server

make_tree
start_server "$work/tree" --fs=ext4 -U "$work/sock" --on-change=stale
change_all
equal "$(read_at $((offset[rewritten] + 69632)) 4096 | tr -d r)" X "--on-change=stale, rewritten"
equal "$(read_at $((offset[truncated] + 45056)) 8192 | tr -d '\0' | wc -c)" 4944 "--on-change=stale, truncated"
stop_server

# ln, chmod and setfattr on a served file end it by its ctime, which the message names; with
# --change-check=mtime `cp -al` of the served tree keeps its clients going.
make_tree
start_server "$work/tree" --fs=ext4 -U "$work/sock"
equal "$(read_at "${offset[steady]}" 4096 | tr -d s | wc -c)" 0 "before cp -al"
cp -al "$work/tree" "$work/links"
equal "$(read_at "${offset[steady]}" 4096)" EIO "after cp -al"
contains "$(cat "$server_log")" 'steady changed after it was scanned: its ctime differs.*--change-check=mtime'
stop_server
tar -cf "$work/tree.tar" -C "$work/tree" .
for source in tree tree.tar; do
  rm -rf "$work/links"
  "$MKVIRTFS" dump "$work/$source" --fs=ext4 -o "$work/expected" --force >"$work/out"
  start_server "$work/$source" --fs=ext4 -U "$work/sock" --change-check=mtime
  nbdcopy "$uri" - | cmp - "$work/expected" || fail "$source before cp -al"
  sleep 0.05
  cp -al "$work/$source" "$work/links"
  chmod -R go-w,u+x "$work/$source"
  nbdcopy "$uri" - | cmp - "$work/expected" || fail "$source after cp -al and chmod"
  equal "$(cat "$server_log")" "" "what the server said"
  sleep 0.05
  if [[ -d $work/$source ]]; then echo X >>"$work/tree/steady"; else echo X >>"$work/$source"; fi
  nbdcopy "$uri" - >"$work/copied" 2>"$work/stderr" && fail "$source: a file that was written to was served"
  contains "$(cat "$server_log")" 'changed after it was .*: its size was [0-9]+ bytes and is'
  stop_server
done
# The other order: what sets the mtime alone is seen by both, and named.
for check in ctime mtime; do
  make_tree
  start_server "$work/tree" --fs=ext4 -U "$work/sock" --change-check=$check
  sleep 0.05
  touch "$work/tree/steady"
  equal "$(read_at "${offset[steady]}" 4096)" EIO "touched, $check"
  contains "$(cat "$server_log")" 'steady changed .*its mtime differs'
  stop_server
done
fails 2 'change-check' "$MKVIRTFS" serve "$work/tree" --change-check=size
