#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Faults are planted into a small repository: whatever scripts/tidy skips, it must lose none.
set -euo pipefail

tidy=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../scripts" && pwd)/tidy
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
  echo "FAILED: $*" >&2
  [[ ! -f $work/out ]] || sed 's/^/  | /' "$work/out" >&2
  exit 1
}

# clang-tidy with a count of its runs.
mkdir -p "$work/bin" "$work/repo"
cat >"$work/bin/clang-tidy-19" <<SCRIPT
#!/bin/bash
[[ \$1 == --version ]] || echo "\$*" >>"$work/runs"
exec $(command -v clang-tidy-19) "\$@"
SCRIPT
chmod +x "$work/bin/clang-tidy-19"
export PATH=$work/bin:$PATH
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@example.org
export GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@example.org
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

cd "$work/repo"
git init -q
flags=
configure() {
  mkdir -p build
  printf '[%s,\n%s]\n' \
    "{\"directory\": \"$PWD\", \"file\": \"a.cpp\", \"command\": \"clang++-19 $flags -c a.cpp -o a.o\"}" \
    "{\"directory\": \"$PWD\", \"file\": \"b.cpp\", \"command\": \"clang++-19 $flags -c b.cpp -o b.o\"}" \
    >build/compile_commands.json
}
# run WANTED-STATUS WANTED-RUNS WHAT [ARGUMENT...]
run() {
  local status=0 wanted=$1 runs=$2 what=$3
  shift 3
  sleep 0.2  # the result of a file that changed just now is not kept
  : >"$work/runs"
  "$tidy" --build build --base-file base "$@" --house a.cpp b.cpp >"$work/out" 2>&1 || status=$?
  ((status == wanted)) || fail "$what: exit status $status, not $wanted"
  (($(wc -l <"$work/runs") == runs)) || fail "$what: clang-tidy ran $(wc -l <"$work/runs") times, not $runs"
}
says() { grep -qE "$1" "$work/out" || fail "the output does not say '$1'"; }

printf '%s\n' 'Checks: "-*,clang-analyzer-core.*,modernize-use-nullptr,bugprone-macro-parentheses"' \
  "HeaderFilterRegex: '.*'" >.clang-tidy
printf '%s\n' /build/ >.gitignore
printf '%s\n' '#include "h.h"' 'int a(int n) { return twice(n); }' >a.cpp
printf '%s\n' 'int b(int n);' 'int b(int n) { return n + 1; }' >b.cpp
printf '%s\n' 'inline int twice(int n) { return 2 * n; }' >h.h
configure
git add . && git commit -qm base

run 0 2 "no base: everything is checked"
says 'every file: there is no base'
says '^clang-tidy: 2 files checked, 0 known to be clean, 0 the same'
run 0 0 "a second time: everything is known"
run 0 2 "--all reads no kept result" --all
says 'names this commit now'
git add . && git commit -qm 'the base file'
rm -rf build/tidy-cache
run 0 0 "with a base nothing is checked"
says '^clang-tidy: 0 files checked, 0 known to be clean, 2 the same'
run 0 1 "a file with checks of its own, which the base does not name" \
  --test-checks='-*,modernize-use-nullptr' --tests b.cpp
says '^clang-tidy: 1 files checked, 0 known to be clean, 2 the same'

rm -rf build/tidy-cache
mkdir sub && echo 'inline int *zero() { return 0; }' >sub/in.h && sed -i '1i #if 0\n#include "sub/in.h"\n#endif' h.h
run 0 1 "a header of a header, which the preprocessor leaves out"
sed -i 's/^#if 0/#if 1/' h.h && run 1 1 "a fault in a header of a header"
says 'sub/in.h:1:.*modernize-use-nullptr'
git checkout -q h.h && rm -r sub
printf '%s\n' '#define NAME "h.h"' '#include NAME' 'int c(int n) { return twice(n); }' >b.cpp
git commit -qam 'a macro names a header' && sed -i "s/^commit .*/commit $(git rev-parse HEAD)/" base
run 0 1 "a header that a macro names: nobody knows what differs"
git checkout -q base && git reset -q --hard HEAD~1

null='int f(int *p) { if (p == nullptr) { return *p; } return 0; }'
echo "$null" >>a.cpp
run 1 1 "a fault for the analyzer in a changed file"
says 'a.cpp:3:.*NullDereference'
run 1 1 "a finding is never kept"
says 'a.cpp:3:.*NullDereference'
git commit -qam 'committed' && run 1 1 "a fault that is committed after the base"
says 'a.cpp:3:.*NullDereference'
sed -i '3s,$, // NOLINT,' a.cpp && run 0 1 "a fault that a comment excuses"
sed -i 's, // NOLINT,,' a.cpp && run 1 1 "a comment that goes brings the fault back"
git checkout -q HEAD~1 a.cpp && run 0 0 "what was known before is known again"

echo 'inline int twice(int n) { int *p = nullptr; return *p + n; }' >h.h
run 1 1 "a fault for the analyzer in a header: its includer did not change"
says 'h.h:1:.*NullDereference'
git checkout -q h.h
echo '#define TWICE(x) x * 2' >>h.h
run 1 1 "a fault in a macro that the preprocessor drops"
says 'bugprone-macro-parentheses'
git checkout -q h.h

sed -i "1i #ifdef FAULT\n${null/ f/ k}\n#endif" b.cpp
git commit -qam 'excused by flags'
run 0 1 "a fault behind a flag"
flags=-DFAULT configure
run 1 2 "a flag that brings it in: both files have other flags than the base"
says 'b.cpp:2:.*NullDereference'
flags='' configure
git reset -q --hard HEAD~2

echo 'int *zero() { return 0; }' >>b.cpp
git commit -qam 'a fault for a check that is not the analyzer'
run 1 1 "a fault for another check"
says 'modernize-use-nullptr'
sed -i 's/modernize-use-nullptr,//' .clang-tidy
run 0 2 "another configuration: everything is checked"
says 'every file: .clang-tidy differs'
git checkout -q .clang-tidy
run 1 1 "the old configuration: the fault is there"
git reset -q --hard HEAD~1

echo "$null" >>b.cpp
git commit -qam 'a fault in the base, which should not be'
sed -i "s/^commit .*/commit $(git rev-parse HEAD)/" base
run 0 0 "what the base has is not looked for again"
run 1 2 "--all finds it, whatever is kept" --all
says 'b.cpp:3:.*NullDereference'
sed -i "s/^commit .*/commit $(printf '%040d' 1)/" base
run 1 1 "a base that git does not have: what was not kept is checked"
says 'every file: this clone does not have the base'
says 'b.cpp:3:.*NullDereference'
sed -i 's/^version .*/version 1/' base
run 1 1 "a base of another tool: everything is checked"
says 'by another version'
git checkout -q base
echo 'int *zero() { return 0; }' >c.cpp
run 1 2 "a file that is neither compiled nor known to git" --tests c.cpp
says 'c.cpp:1:.*modernize-use-nullptr'

# Headers alone: CMake makes a file for each, in the build folder.
git reset -q --hard && git clean -qfd
mkdir -p build/alone && for header in g h; do echo "#include \"$header.h\"" >build/alone/$header.h.cxx; done
echo 'int g(int n);' >g.h
printf '[%s,\n%s]\n' \
  "{\"directory\": \"$PWD/build\", \"file\": \"$PWD/build/alone/g.h.cxx\", \"command\": \"clang++-19 -I.. -c $PWD/build/alone/g.h.cxx -o g.o\"}" \
  "{\"directory\": \"$PWD/build\", \"file\": \"$PWD/build/alone/h.h.cxx\", \"command\": \"clang++-19 -I.. -c $PWD/build/alone/h.h.cxx -o h.o\"}" \
  >build/compile_commands.json
headers() {
  local wanted=$1 what=$2 listed
  listed=$("$tidy" --list-headers --build build --base-file base | tr '\n' ' ')
  [[ $listed == "$wanted" ]] || fail "$what: '$listed', not '$wanted'"
}
rm base && headers "g.o h.o " "headers without a base"
git add . && git commit -qm headers
"$tidy" --write-base --build build --base-file base --house >/dev/null
git add . && git commit -qm 'a base by --write-base'
headers "" "no header differs"
echo >>h.h && headers "h.o " "a header that differs"
sed -i 's/-I\.\./-I.. -DNEW/' build/compile_commands.json && headers "g.o h.o " "headers with other flags"
echo "tidy: no planted fault was lost"
