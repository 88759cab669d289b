#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What a test passes over because of who runs it is counted by scripts/run-tests, with its reason. For root a skip
# is a failure: CI, as root, skips none.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

run_tests=$here/../../scripts/run-tests
mkdir "$work/build"
cat >"$work/build/CTestTestfile.cmake" <<'END_OF_TESTS'
add_test(whole sh -c "echo nothing is passed over")
add_test(parts sh -c "echo SKIPPED: device nodes; echo SKIPPED: mounts")
add_test(other sh -c "echo SKIPPED: mounts")
END_OF_TESTS

status=0
"$run_tests" "$work/build" >"$work/out" 2>&1 || status=$?
contains "$(cat "$work/out")" '100% tests passed, 0 tests failed out of 3'
contains "$(cat "$work/out")" '^Not tried by .* \(3 times\):$'
contains "$(cat "$work/out")" '^ +1 SKIPPED: device nodes$'
contains "$(cat "$work/out")" '^ +2 SKIPPED: mounts$'
is_root && wanted=1 || wanted=0
equal "$status" $wanted "exit status with skips"

# Tests that pass over nothing are no failure for anybody, and what fails stays a failure.
"$run_tests" "$work/build" -R whole >"$work/out" 2>&1 || fail "without skips: $(cat "$work/out")"
! grep -q 'Not tried' "$work/out" || fail "it counts skips of another run: $(cat "$work/out")"
echo 'add_test(broken false)' >>"$work/build/CTestTestfile.cmake"
! "$run_tests" "$work/build" >"$work/out" 2>&1 || fail "a failure is none: $(cat "$work/out")"

# The tests' own words: skipped() of this library, and of tests/support/privileges.h in `tree: root skips nothing`.
status=0
(skipped "something") >"$work/out" 2>&1 || status=$?
if is_root; then
  equal "$status" 1 "exit status of a skip by root"
  contains "$(cat "$work/out")" 'as root nothing is skipped: something'
  status=0
  # Another user, and the root of a user name space, may.
  setpriv --reuid=65534 --regid=65534 --clear-groups bash -c "$(declare -f is_root fail skipped); skipped something" \
    >"$work/out" || status=$?
fi
equal "$status" 0 "exit status of a skip"
equal "$(cat "$work/out")" "SKIPPED: something" "what a skip prints"
