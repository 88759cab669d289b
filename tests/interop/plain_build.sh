#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# plain_build.sh COMPILER: a plain `cmake -DCMAKE_BUILD_TYPE=Release`, without a preset, needs no test
# library and does not take warnings for errors; the project's own presets do.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

compiler=$1
root=$(cd "$here/../.." && pwd)
configure() {
  cmake -S "$root" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Release "$@" \
    >"$work/out" 2>&1 || fail "cmake $*: $(tail -n 20 "$work/out")"
}
configure -B "$work/plain"
commands=$work/plain/compile_commands.json
[[ $(grep -c -- '-Wconversion' "$commands") -gt 100 ]] || fail "few files are compiled: $(head -c 500 "$commands")"
! grep -m 1 -- '-Werror' "$commands" || fail "a plain build takes warnings for errors"
! grep -m 1 -iE 'catch|_test\.cpp' "$commands" || fail "a plain build has tests"
ninja -C "$work/plain" mkvirtfs_support >"$work/out" 2>&1 || fail "support/: $(tail -n 20 "$work/out")"

# Every preset that can be chosen says that they are errors.
presets=$(cd "$root" && cmake --list-presets | grep -oE '^ +"[a-z]+"' | tr -d ' "')
(($(wc -l <<<"$presets") >= 7)) || fail "presets: $presets"
for preset in $presets; do
  contains "$(cd "$root" && cmake --preset "$preset" -N)" 'MKVIRTFS_WERROR="ON"'
done
configure -B "$work/strict" -DMKVIRTFS_WERROR=ON
equal "$(grep -c -- '-Werror' "$work/strict/compile_commands.json")" "$(grep -c '"command"' "$commands")" \
  "files compiled with -Werror"
