#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Nothing waits for a stranger: a FIFO where a regular file belongs is refused at once; where a pipe
# is documented one line says what is waited for, and SIGTERM ends the wait.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
mkfifo "$work/fifo"
# For who would wait for ever.
soon() { timeout --signal=KILL 20 "$@"; }

# --- A FIFO as overlay, in an overlay directory, as key, certificate, or process id file ----------
refused='not a regular file'
fails 2 "$refused" soon "$MKVIRTFS" serve "$work/tree" --fs=ext4 --overlay="$work/fifo" -U "$work/sock"
fails 2 "$refused" soon "$MKVIRTFS" overlay check "$work/fifo"
fails 2 "$refused" soon "$MKVIRTFS" overlay info "$work/fifo"
mkdir "$work/overlays"
mkfifo "$work/overlays/%.overlay" "$work/overlays/job.overlay" "$work/overlays/job.overlay.~new~" \
  "$work/overlays/%.overlay.~1~"
start_server "$work/tree" --fs=ext4 --overlay="$work/overlays/" --clone='job*' -U "$work/sock"
# The client learns why, and so does the log; other exports are served.
for name in "" job; do
  qemu-io -r -f raw "nbd+unix:///$name?socket=$work/sock" -c 'read 0 512' >"$work/out" 2>&1 &&
    fail "export '$name' was opened"
  contains "$(cat "$work/out")" "$refused"
done
contains "$(cat "$server_log")" "the overlay of export .*$refused"
nbdinfo --size "nbd+unix:///job-2?socket=$work/sock" >"$work/out"
stop_server

mkfifo "$work/pid"
fails 1 "$refused" soon "$MKVIRTFS" serve "$work/tree" --fs=ext4 -P "$work/pid" -U "$work/sock"
fails 1 "$refused" soon "$MKVIRTFS" serve "$work/tree" --fs=ext4 --tls=require --tls-psk="$work/fifo" -U "$work/sock"
mkdir "$work/pki"
mkfifo "$work/pki/ca-cert.pem" "$work/pki/server-cert.pem" "$work/pki/server-key.pem"
fails 1 "$refused" soon "$MKVIRTFS" serve "$work/tree" --fs=ext4 --tls=require --tls-certificates="$work/pki" \
  -U "$work/sock"

# A FIFO in the place of a kept index is made anew, and so is everything else that is no index.
tar -czf "$work/tree.tgz" -C "$work/tree" .
"$MKVIRTFS" dump "$work/tree.tgz" --fs=ext4 -o "$work/once" --cache-dir="$work/cache" >"$work/out"
for index in "$work"/cache/*.index; do rm "$index" && mkfifo "$index"; done
soon "$MKVIRTFS" dump "$work/tree.tgz" --fs=ext4 -o "$work/twice" --cache-dir="$work/cache" >"$work/out"
same "$work/once" "$work/twice"
# Contents of a manifest.
printf '#mtree\n./file type=file mode=0644 size=5 contents=./fifo\n' >"$work/manifest"
fails 1 'no regular file' soon "$MKVIRTFS" dump "$work/manifest" --fs=ext4 -o "$work/none"

# --- Where a pipe is documented -------------------------------------------------------------------

# wait_for PATTERN FILE
wait_for() {
  local deadline=$((SECONDS + 20))
  until grep -qE -- "$1" "$2"; do
    ((SECONDS < deadline)) || fail "no '$1' in $2: $(cat "$2")"
    sleep 0.05
  done
}
# waits PATTERN COMMAND...: it says in one line what it waits for, and ends soon after SIGTERM.
waits() {
  local pattern=$1 begun status=0
  shift
  : >"$work/stderr"  # what the command before said must not be taken for what this one says
  "$@" >"$work/stdout" 2>"$work/stderr" </dev/null &
  local pid=$!
  server_pids+=("$pid")
  wait_for "$pattern" "$work/stderr"
  begun=$(date +%s%N)
  kill -TERM "$pid"
  wait "$pid" || status=$?
  ((status != 0)) || fail "$* ended well"
  (($(date +%s%N) - begun < 3000000000)) || fail "$* took long to end"
  equal "$(grep -c "waiting for" "$work/stderr")" 1 "lines on what is waited for"
}
waits "waiting for $work/fifo: nobody writes" "$MKVIRTFS" dump "$work/fifo" --fs=ext4 -o "$work/none"
waits "waiting for $work/fifo: nobody writes" "$MKVIRTFS" inspect "$work/fifo" --fs=ext4
waits "waiting for $work/fifo: nobody writes" "$MKVIRTFS" serve "$work/fifo" --fs=ext4 -U "$work/sock"
waits "waiting for $work/fifo: nobody reads" "$MKVIRTFS" dump "$work/tree" --fs=ext4 -o "$work/fifo"
waits "waiting for $work/fifo: nobody writes" \
  "$MKVIRTFS" dump "$work/tree.tgz" --passphrase-file="$work/fifo" --fs=ext4 -o "$work/none"
[[ ! -e $work/none ]] || fail "something was written"

# Standard input that brings nothing.
mkfifo "$work/quiet"
sleep 60 >"$work/quiet" &
sleeper=$!
server_pids+=("$sleeper")
status=0
"$MKVIRTFS" dump - --fs=ext4 -o "$work/none" <"$work/quiet" 2>"$work/stderr" &
pid=$!
server_pids+=("$pid")
wait_for 'waiting for standard input' "$work/stderr"
kill -TERM "$pid"
wait "$pid" || status=$?
((status != 0)) || fail "an archive from nobody"
kill "$sleeper"

# A source that a client asks for: the server ends all the same.
start_server late="$work/fifo,fs=ext4" other="$work/tree,fs=ext4" -U "$work/sock"
nbdinfo --size "nbd+unix:///late?socket=$work/sock" >"$work/out" 2>&1 &
server_pids+=("$!")
wait_for "waiting for $work/fifo" "$server_log"
nbdinfo --size "nbd+unix:///other?socket=$work/sock" >"$work/size"
begun=$(date +%s%N)
stop_server
(($(date +%s%N) - begun < 3000000000)) || fail "the server took long to end"

# And who comes late is waited for: the bytes are right.
{
  sleep 1.5
  cat "$work/tree.tgz"
} >"$work/fifo" &
"$MKVIRTFS" dump "$work/fifo" --fs=ext4 -o "$work/late" >"$work/out" 2>"$work/stderr"
same "$work/late" "$work/once"
contains "$(cat "$work/stderr")" "waiting for $work/fifo"
"$MKVIRTFS" dump "$work/tree.tgz" --fs=ext4 -o "$work/fifo" --cache-dir=none >"$work/out" 2>"$work/stderr" &
pid=$!
sleep 1.5
cat "$work/fifo" >"$work/late"
wait "$pid" || fail "dump to a FIFO: $(cat "$work/stderr")"
same "$work/late" "$work/once"
