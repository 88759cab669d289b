#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# scripts/build as people meet it: on a terminal it shows how far it is, elsewhere it does not, and
# another user learns what to do.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

root=$(cd "$here/../.." && pwd)
copy=$work/copy
mkdir -p "$copy/scripts" "$copy/build/toy"
cp "$root/scripts/build" "$copy/scripts/"
touch -d 2020-01-01 "$copy/CMakePresets.json"
cat >"$copy/build/toy/build.ninja" <<'END'
rule make
  command = touch $out
rule break
  command = echo it is broken; false
build a: make
build b: make
build c: break
END

# No terminal: one line, and what failed.
"$copy/scripts/build" toy a 2>"$work/err" || fail "the build failed: $(cat "$work/err")"
equal "$(cat "$work/err")" "building preset 'toy' ..." "what is said without a terminal"
"$copy/scripts/build" toy a 2>"$work/err" || fail "the second build failed"
equal "$(cat "$work/err")" "" "what is said when nothing is to be done"
! "$copy/scripts/build" toy c 2>"$work/err" || fail "a build that failed was called good"
contains "$(cat "$work/err")" "it is broken"
contains "$(cat "$work/err")" "the build of preset .toy. failed"

# A terminal: the steps.
script -qec "'$copy/scripts/build' toy a b" /dev/null >"$work/out" </dev/null ||
  fail "the build on a terminal failed: $(cat "$work/out")"
contains "$(cat "$work/out")" "building preset 'toy': 1 of 1 steps"
! script -qec "'$copy/scripts/build' toy c" /dev/null >"$work/out" </dev/null ||
  fail "a build that failed on a terminal was called good"
contains "$(cat "$work/out")" "it is broken"

# Another user: uses what is built, and learns what to do where something is not.
chmod 755 "$work" "$copy"
if ((EUID == 0)); then
  other=(setpriv --reuid=65534 --regid=65534 --clear-groups)
else
  chmod -R a-w "$copy"
  other=(env)
fi
"${other[@]}" "$copy/scripts/build" toy a 2>"$work/err" ||
  fail "another user cannot use what is built: $(cat "$work/err")"
equal "$(cat "$work/err")" "" "what is said to another user of what is built"
! "${other[@]}" "$copy/scripts/build" toy c 2>"$work/err" || fail "another user has built"
contains "$(cat "$work/err")" "build/toy belongs to .*git clone"
! "${other[@]}" "$copy/scripts/build" other 2>"$work/err" || fail "another user has built"
contains "$(cat "$work/err")" "/build belongs to"
chmod -R u+w "$copy"
