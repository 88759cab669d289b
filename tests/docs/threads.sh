#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# docs/threads.md names every mutex of the sources once, and none that is not there; threads are started in one place.
# An argument is the root of the sources.
set -euo pipefail

cd "$1"
status=0
fail() {
  echo "$1" >&2
  status=1
}

# Every room, also one that comes later.
sources() {
  find . \( -path ./build -o -path ./tests -o -path ./bench -o -path ./examples -o -name '.?*' -o -name testing \) -prune -o \
    \( -name '*.h' -o -name '*.cpp' \) ! -name '*_test.cpp' -printf '%P\n'
}

# "block/dump mutex_", once for each declaration.
of_sources=$(sources | grep -v '^support/mutex\.h$' | LC_ALL=C sort |
  xargs grep -HoE '\<((std::)?(recursive_|timed_|shared_)?mutex|(Shared)?Mutex|std::array<(Shared)?Mutex, *[A-Za-z]+>) +[a-z_]+ *(;|[A-Z_]+\()' |
  sed -E 's/^([^:]*)\.[a-z]+:.*[ >]([a-z_]+) *[;A-Z].*/\1 \2/' | LC_ALL=C sort)
# shellcheck disable=SC2016  # backquotes of Markdown
of_docs=$(sed -nE 's/^\| `([a-z0-9_/]+)` `([a-z_]+)` .*/\1 \2/p' docs/threads.md | LC_ALL=C sort)
((${#of_sources} > 0 && ${#of_docs} > 0)) || fail "no mutex was found"
difference=$(diff <(echo "$of_docs") <(echo "$of_sources") || true)
[[ ! $difference ]] || fail "docs/threads.md (<) does not have the mutexes of the sources (>):
$(grep '^[<>]' <<<"$difference")"

# std::thread::id and the like are no threads; support/thread.h is the place.
started=$(sources | grep -vE '^support/thread\.h$' |
  xargs grep -nE 'std::jthread|std::async|pthread_create|std::thread *[({]|std::thread [a-z_]+[({]' || true)
[[ ! $started ]] || fail "threads are started by start_thread() (support/thread.h), not here:
$started"
counted=$(sources | grep -vE '^(support/parallel|net/eager_wait)\.cpp$' | xargs grep -n 'hardware_concurrency' || true)
[[ ! $counted ]] || fail "thread_count() (support/parallel.h) counts processors, not this:
$counted"
exit $status
