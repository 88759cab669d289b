#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Snapshots of overlays that outlive their server: both branches are found again after kill -9, several
# layers deep, beside a file and in a directory; checked from outside; undone or finished when the
# server is killed in the middle of them.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
ctl() { "$MKVIRTFS" ctl "$work/ctl" "$@"; }
disk() { echo "nbd+unix:///$1?socket=$work/sock"; }
io() {
  local name=$1 log
  shift
  log=$(qemu-io -f raw "$(disk "$name")" "$@" 2>&1) || fail "$name: $* said $log"
  if grep -qi 'fail' <<<"$log"; then fail "$name: $* said $log"; fi
}
kill_server() {
  kill -KILL "$server_pid"
  wait "$server_pid" 2>/dev/null || true
}
listed() {
  nbdinfo --list --json "$(disk '')" |
    python3 -c 'import json, sys; print(*sorted(e["export-name"] for e in json.load(sys.stdin)["exports"]))'
}
# Each overlay has a base manifest beside it, which overlay_base.sh is about.
files() { (cd "$1" && printf '%s\n' * | grep -v '\.base$' | paste -sd ' '); }
sound() {
  local file
  for file in "$@"; do
    [[ $file != *.base ]] || continue
    equal "$("$MKVIRTFS" overlay check "$file")" sound "$file"
  done
}

# Beside a file.
mkdir "$work/kept"
overlay=$work/kept/disk
serve() { start_server "$work/tree" --fs=ext4 --overlay="$overlay" -U "$work/sock" --ctl="$work/ctl"; }
serve
io '' -c 'write -P 0x11 1M 64k' -c flush
stop_server
equal "$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["version"])' "$("$MKVIRTFS" overlay info --json "$overlay")")" \
  1 "the version before any snapshot"
serve
ctl snapshot '' before/second
io '' -c 'write -P 0x21 1M 4k' -c flush
io before/second -c 'write -P 0x31 1028k 4k' -c flush
ctl snapshot before/second third
io third -c 'write -P 0x41 1032k 4k' -c 'write -z -u 1036k 4k' -c flush
io before/second -c 'write -P 0x51 1040k 4k' -c flush
ctl save third -o "$work/third.image"
kill_server
equal "$(files "$work/kept")" \
  'disk disk.~1~ disk@before%2Fsecond.overlay disk@before%2Fsecond.overlay.~1~ disk@before%2Fsecond.overlay.~2~ disk@third.overlay disk@third.overlay.~1~ disk@third.overlay.~2~'
sound "$work"/kept/*
info=$("$MKVIRTFS" overlay info "$overlay@third.overlay")
contains "$info" '^version +2$'
contains "$info" '^layer +3, it began as a snapshot$'
contains "$info" '^over +.*/disk@third.overlay.~2~: 4.0 KiB written'
contains "$info" '^over +.*/disk@third.overlay.~1~: 64.0 KiB written'
contains "$("$MKVIRTFS" overlay info "$overlay.~1~")" '^layer +1, frozen$'
equal "$("$MKVIRTFS" overlay info --json "$overlay@third.overlay" | python3 -c 'import json, sys
told = json.load(sys.stdin)
print(told["layer"], told["frozen"], told["began_as_snapshot"], [(b["layer"], b["written_bytes"], len(b["id"])) for b in told["below"]])')" \
  '3 False True [(2, 4096, 32), (1, 65536, 32)]'
serve
equal "$(listed)" ' before/second third'
io '' -c 'read -P 0x21 1M 4k' -c 'read -P 0x11 1028k 60k'
io before/second -c 'read -P 0x11 1M 4k' -c 'read -P 0x31 1028k 4k' -c 'read -P 0x11 1032k 8k' -c 'read -P 0x51 1040k 4k'
io third -c 'read -P 0x11 1M 4k' -c 'read -P 0x31 1028k 4k' -c 'read -P 0x41 1032k 4k' -c 'read -P 0 1036k 4k' -c 'read -P 0x11 1040k 24k'
depth=$(nbdinfo --map=qemu:allocation-depth "$(disk third)")
contains "$depth" '^ *1048576 +4096 +3 '
contains "$depth" '^ *1052672 +4096 +2 '
contains "$depth" '^ *1056768 +8192 +1 '
contains "$depth" '^ *0 +1048576 +4 '
nbdcopy "$(disk third)" "$work/third.now"
same "$work/third.image" "$work/third.now"
equal "$(ctl diff third | wc -l)" 2 "changes of third"
contains "$(ctl list)" '^ *69632'
fails 1 'there is such an export' "$MKVIRTFS" ctl "$work/ctl" snapshot '' third
# A layer goes with the last that has it.
ctl discard before/second
equal "$(listed)" ' third'
equal "$(files "$work/kept")" 'disk disk.~1~ disk@third.overlay disk@third.overlay.~1~ disk@third.overlay.~2~'
io third -c 'read -P 0x31 1028k 4k'
stop_server
fails 2 'frozen' "$MKVIRTFS" serve "$work/tree" --fs=ext4 --overlay="$overlay.~1~" -U "$work/sock"
mv "$overlay.~1~" "$work/layer"
fails 1 'layer that it lies over is gone: .*/disk.~1~' "$MKVIRTFS" overlay check "$overlay"
fails 1 'layer that it lies over is gone' "$MKVIRTFS" serve "$work/tree" --fs=ext4 --overlay="$overlay" -U "$work/sock"
cp "$overlay@third.overlay.~2~" "$overlay.~1~"
fails 1 'another layer than the one' "$MKVIRTFS" overlay check "$overlay"
mv "$work/layer" "$overlay.~1~"
sound "$overlay"
# A child can be served by itself, and by one server at a time.
start_server "$work/tree" --fs=ext4 --overlay="$overlay@third.overlay" -U "$work/sock" --ctl="$work/ctl"
io '' -c 'read -P 0x31 1028k 4k' -c 'read -P 0x41 1032k 4k'
fails 1 'in use' "$MKVIRTFS" serve "$work/tree" --fs=ext4 --overlay="$overlay@third.overlay" -U "$work/other"
stop_server

# In a directory, each over the image that it began with.
small_tree "$work/two"
echo different >"$work/two/different"
serve_directory() {
  start_server "$work/tree" "second=$work/two" --fs=ext4 --overlay="$work/overlays/" --clone='job-*' --clone-max=8 \
    -U "$work/sock" --ctl="$work/ctl"
}
serve_directory
for name in '' second job-1; do io "$name" -c "write -P 0x1${#name} 1M 64k" -c flush; done
ctl snapshot '' of/default
ctl snapshot second of-second
ctl snapshot of-second deeper
ctl snapshot job-1 job-9
ctl snapshot job-1 branch
for name in of/default of-second deeper job-9 branch; do io "$name" -c "write -P $((32 + ${#name})) 2M 4k" -c flush; done
nbdcopy "$(disk deeper)" "$work/deeper.image"
kill_server
sound "$work"/overlays/*
serve_directory
equal "$(listed)" " branch deeper job-1 job-9 of-second of/default second"
for name in of/default of-second deeper job-9 branch; do io "$name" -c "read -P $((32 + ${#name})) 2M 4k"; done
io of/default -c 'read -P 0x10 1M 64k'
io deeper -c 'read -P 0x16 1M 64k'
io branch -c 'read -P 0x15 1M 64k'
nbdcopy "$(disk deeper)" "$work/deeper.now"
same "$work/deeper.image" "$work/deeper.now"
ctl diff deeper >/dev/null
ctl snapshot branch branch/again # nobody has to have opened it
for name in of/default of-second deeper job-9 branch second; do ctl discard "$name"; done
equal "$(listed)" " branch/again job-1 second"
io branch/again -c 'read -P 0x15 1M 64k' -c 'read -P 38 2M 4k'
ctl discard --all
equal "$(files "$work/overlays")" '*' "files left"
equal "$(listed)" " second"
stop_server

# Killed in the middle of a snapshot: it was taken, or it was not, and what was acknowledged is there.
cat >"$work/killed.py" <<'END'
import os, random, signal, subprocess, sys, threading, nbd
uri, pid, program, control, number, seed = sys.argv[1], int(sys.argv[2]), *sys.argv[3:7]
handle = nbd.NBD()
handle.connect_uri(uri)
for block in range(0, 512, 2):
    handle.pwrite(bytes([int(number)]) * 4096, (8 << 20) + block * 4096)
handle.flush()
choose = random.Random(seed)
threading.Timer(choose.uniform(0.0, 0.12), os.kill, [pid, signal.SIGKILL]).start()
result = subprocess.run([program, "ctl", control, "snapshot", "", "killed-" + number], capture_output=True)
print("taken" if result.returncode == 0 else "cut off")
END
rm -r "$work/kept" && mkdir "$work/kept"
seed=$RANDOM
for round in 1 2 3 4 5 6; do
  serve
  said=$(python3 "$work/killed.py" "$uri" "$server_pid" "$MKVIRTFS" "$work/ctl" "$round" "$seed-$round")
  wait "$server_pid" 2>/dev/null || true
  serve
  [[ $said != taken || $(listed) == *"killed-$round"* ]] || fail "round $round of seed $seed: an acknowledged snapshot is gone"
  for name in $(listed); do io "$name" -c "read -P ${name#killed-} 8M 4k" -c "read -P ${name#killed-} 10477568 4k"; done
  io '' -c "read -P $round 8M 4k" -c "read -P $round 10477568 4k"
  if compgen -G "$work/kept/*.~new~" >/dev/null; then fail "left behind: $(files "$work/kept")"; fi
  stop_server
  sound "$work"/kept/*
done
