#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A tree of exports, walked level by level by a client that was written from docs/list-hier.md, and by
# clients that know nothing of it.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

for name in a b deep; do small_tree "$work/$name"; done
mkdir "$work/with,comma"
echo 'in a directory with a comma' >"$work/with,comma/file"
start_server "a=$work/a" "tools/b=$work/b,fs=ext2,label=B" "tools=$work/with,,comma,size=16M" \
  "tools/more/deep=$work/deep,fs=ext3" "tools-old=$work/a" --fs=ext4 -U "$work/sock"
equal "$(grep -c '^nbd+unix:///.*?socket=' "${server_log%.log}")" 5 "URIs"

python3 "$here/list_hier.py" "$work/sock" >"$work/tree"
diff - "$work/tree" <<'END' || fail "the tree is another"
a|export||ext4 image of a
tools|export|directory|ext4 image of with,comma
tools/b|export||ext2 image of b
tools/more||directory|
tools/more/deep|export||ext3 image of deep
tools-old|export||ext4 image of a
END
# Nothing of that has built anything.
[[ ! -s $server_log ]] || fail "the server had something to say"

# Every export is its own image, with its own options over the shared ones; the first is the default.
at() { echo "nbd+unix:///$1?socket=$work/sock"; }
check() {
  local name=$1
  shift
  "$MKVIRTFS" dump "$@" -o "$work/dump" >/dev/null
  nbdcopy "$(at "$name")" - | cmp - "$work/dump" || fail "export $name is not what dump makes"
  rm "$work/dump"
}
check a "$work/a" --fs=ext4
check "" "$work/a" --fs=ext4
check tools/b "$work/b" --fs=ext2 --label=B
check tools "$work/with,comma" --fs=ext4 --size=16M
check tools/more/deep "$work/deep" --fs=ext3
fails 1 'no export named' nbdinfo --size "$(at tools/more)"
nbdinfo --list --json "$(at '')" | python3 -c '
import json, sys
names = sorted(export["export-name"] for export in json.load(sys.stdin)["exports"])
assert names == ["a", "tools", "tools-old", "tools/b", "tools/more/deep"], names'

# Our own client shows the same, by whichever way a server has.
equal "$("$MKVIRTFS" list "$(at '')")" "a  ext4 image of a
tools  ext4 image of with,comma
tools/
tools-old  ext4 image of a" "the top level"
equal "$("$MKVIRTFS" list "$(at tools)")" "tools/b  ext2 image of b
tools/more/" "one level"
"$MKVIRTFS" list -R --json "$(at '')" | python3 -c '
import json, sys
for entry in json.load(sys.stdin):
    print(entry["name"], "export" if entry["export"] else "",
          "directory" if entry["directory"] else "", entry["description"], sep="|")' |
  diff - "$work/tree" || fail "list -R --json shows another tree"
fails 1 'no directory .*nothing' "$MKVIRTFS" list "$(at nothing)"
fails 2 'this is no URI' "$MKVIRTFS" list "$work/sock"
fails 1 'No such file' "$MKVIRTFS" list "nbd+unix:///?socket=$work/none"
"$MKVIRTFS" list -R "$(at '')" | head -n 1 >"$work/first"
equal "$(cat "$work/first")" "a  ext4 image of a" "a reader that leaves"
mkdir "$work/flat"
touch "$work/flat"/{x,y}
truncate -s 1M "$work/flat"/{x,y}
# shellcheck disable=SC2016  # nbdkit gives $uri to its command
equal "$(MKVIRTFS=$MKVIRTFS nbdkit -r -U - file dir="$work/flat" --run '"$MKVIRTFS" list -R "$uri"')" "x
y" "nbdkit's flat list"
qemu-nbd -r -f raw -x one/disk -k "$work/qemu" --fork --pid-file="$work/qemu.pid" "$work/flat/x"
equal "$("$MKVIRTFS" list -R "nbd+unix:///?socket=$work/qemu")" "one/
one/disk" "QEMU's flat list"
kill "$(cat "$work/qemu.pid")"

# A stock client walks the tree without knowing our option.
python3 - "$work/sock" <<'END'
import sys
import nbd
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_unix(sys.argv[1])
names = []
h.add_meta_context("x-mkvirtfs:ls:tools")
h.opt_list_meta_context(lambda name: names.append(name) or 0)
assert names == ["x-mkvirtfs:export:tools/b", "x-mkvirtfs:dir:tools/more"], names
h.opt_abort()
END

# A source that is gone is one line for the client and one for the log, and is tried again.
mv "$work/b" "$work/moved"
contains "$(qemu-img info "$(at tools/b)" 2>&1 || true)" "server reported: .*$work/b"
contains "$(cat "$server_log")" "export tools/b: .*$work/b"
mv "$work/moved" "$work/b"
check tools/b "$work/b" --fs=ext2 --label=B
: >"$server_log"

# Fifty clients share one plan.
for _ in $(seq 50); do nbdinfo --size "$(at tools/more/deep)" & done >"$work/sizes"
for job in $(jobs -p); do [[ $job == "$server_pid" ]] || wait "$job" || fail "a client failed"; done
equal "$(sort -u "$work/sizes" | wc -l)" 1 "sizes that fifty clients saw"
stop_server

# Wrong words are told before anything happens.
fails 2 'no option lable' "$MKVIRTFS" serve "a=$work/a,lable=x"
fails 2 'two sources have the name a' "$MKVIRTFS" serve "a=$work/a" "$work/b" --exportname=a
fails 1 'does not exist' "$MKVIRTFS" serve "a=$work/nothing"
