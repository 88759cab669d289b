# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC2034  # here, uri: for the tests
# To be sourced by every interop test: a scratch directory in $work, servers that end with the test,
# and words to check with. CTest gives MKVIRTFS, the program under test, and MANIFEST.
set -euo pipefail

# Debian's own python3 comes first: it has the bindings of libnbd.
export PATH=/usr/bin:/bin:/usr/sbin:/sbin:$PATH LC_ALL=C PYTHONDONTWRITEBYTECODE=1
: "${MKVIRTFS:?the program under test}" "${MANIFEST:?the program that lists a tree}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Not /tmp, which may be a tmpfs without user attributes; short, because socket paths are short.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/mkvirtfs-XXXXXX")
server_pids=()
# Set by the test when it has something of its own to undo.
at_exit() { :; }
clean_up() {
  local status=$?
  set +e
  at_exit
  # Reaped with stderr closed, or bash would tell of each that it was killed.
  ((${#server_pids[@]} == 0)) || { kill -KILL "${server_pids[@]}"; wait; } 2>/dev/null
  chmod -R u+rwX "$work" 2>/dev/null
  rm -rf "$work"
  exit $status
}
trap clean_up EXIT

fail() {
  echo "FAILED: $*" >&2
  [[ -z ${server_log-} || ! -s $server_log ]] || { echo "the server said:" && tail "$server_log"; } >&2
  exit 1
}

# Whether this user is root, and in no user name space: then they may do everything.
is_root() { ((EUID == 0)) && grep -qE '^ +0 +0 +4294967295$' /proc/self/uid_map; }

# skipped WHAT: notes what this user may not do. scripts/run-tests counts these lines.
skipped() {
  ! is_root || fail "as root nothing is skipped: $*"
  echo "SKIPPED: $*"
}

# A command before others that gives them mounts of their own, where this user may have such.
with_own_mounts=(unshare --mount)
((EUID == 0)) || with_own_mounts+=(--user --map-root-user)
may_mount() {
  "${with_own_mounts[@]}" mount -t tmpfs none "$work" 2>/dev/null && return
  skipped "mounts"
  return 1
}

same() { cmp "$1" "$2" || fail "$1 and $2 differ"; }

equal() { [[ $1 == "$2" ]] || fail "${3-values}: '$1' is not '$2'"; }

contains() { grep -qE -- "$2" <<<"$1" || fail "no '$2' in: $1"; }

# start_server ARGUMENT...: `mkvirtfs serve` in the background. When it returns, connections are
# accepted; $uri is the first URI it printed, $server_pid and $server_log are the newest server's.
start_server() {
  local out
  out=$(mktemp "$work/server-XXXXXX")
  server_log=$out.log
  "$MKVIRTFS" serve "$@" >"$out" 2>"$server_log" </dev/null &
  server_pid=$!
  server_pids+=("$server_pid")
  local deadline=$((SECONDS + 60))
  until grep -q '^nbd' "$out"; do
    kill -0 "$server_pid" 2>/dev/null || fail "the server ended: mkvirtfs serve $*"
    ((SECONDS < deadline)) || fail "the server was not ready in time: mkvirtfs serve $*"
    sleep 0.02
  done
  uri=$(grep -m 1 '^nbd' "$out")
}

# start NAME PROGRAM ARGUMENT... SOCKET: a server that is not mkvirtfs, in the background; returns when
# its socket is there. Sets $server_pid and $server_log.
start() {
  local name=$1 socket=${*: -1}
  shift
  server_log=$work/$name.log
  "$@" >"$work/$name.out" 2>"$server_log" </dev/null &
  server_pid=$!
  server_pids+=("$server_pid")
  local deadline=$((SECONDS + 30))
  until [[ -S $socket ]]; do
    kill -0 "$server_pid" 2>/dev/null || fail "$name ended: $*"
    ((SECONDS < deadline)) || fail "$name was not ready in time: $*"
    sleep 0.02
  done
}

# The path of the socket in a URI.
socket_of() {
  python3 -c 'import sys, urllib.parse as u; print(u.unquote(sys.argv[1].split("socket=")[1]))' "$1"
}

# Ends the newest server as an operator would: it must end well and say nothing of errors.
stop_server() {
  kill -TERM "$server_pid"
  local status=0
  wait "$server_pid" || status=$?
  equal "$status" 0 "exit status after SIGTERM"
  server_pids=("${server_pids[@]/$server_pid/}")
  # shellcheck disable=SC2206  # drops the empty word
  server_pids=(${server_pids[@]})
}

# Ends as nothing but a failure of the kind: fails STATUS PATTERN COMMAND...
# The message is one line on stderr, and stdout stays empty.
fails() {
  local expected=$1 pattern=$2 status=0
  shift 2
  "$@" >"$work/stdout" 2>"$work/stderr" </dev/null || status=$?
  equal "$status" "$expected" "exit status of $*"
  equal "$(wc -l <"$work/stderr")" 1 "lines on stderr of $*: $(cat "$work/stderr")"
  [[ ! -s $work/stdout ]] || fail "$* printed: $(head -c 500 "$work/stdout")"
  contains "$(cat "$work/stderr")" "$pattern"
}

# A few directories, files of all kinds of sizes, a sparse one: some megabytes, made in no time.
small_tree() {
  mkdir -p "$1"/{bin,empty,"with blank/deeper"}
  local size
  for size in 0 1 1000 4096 5000 70000 3000000; do
    head -c "$size" < <(yes "line of $size in $(basename "$1" | tr -d '0-9')" || true) >"$1/bin/$size"
  done
  noise 2000000 >"$1/noise"
  truncate -s 20M "$1/sparse"
  printf 'in the middle' | dd of="$1/sparse" bs=1 seek=10000000 conv=notrunc status=none
  ln -s ../noise "$1/bin/link"
  ln "$1/noise" "$1/with blank/deeper/same noise"
  find "$1" -exec touch -h -d '2024-02-03 04:05:06.789' {} +
}

# So many bytes that do not compress and are the same every time.
noise() { python3 -c "import random, sys; sys.stdout.buffer.write(random.Random(1).randbytes($1))"; }
