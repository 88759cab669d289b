#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# install.sh BUILD-DIR OUT-DIR: installs what was built, and builds examples/nbd and examples/image from that
# alone, by CMake and by pkg-config. Leaves the examples in OUT-DIR for the tests that run them.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

build=$1 out=$2
examples=$here/../../examples/nbd
image_example=$here/../../examples/image
rm -rf "$out"
mkdir -p "$out"
quietly() { "$@" >"$work/out" 2>&1 || fail "$*: $(tail -n 30 "$work/out")"; }
quietly cmake --install "$build" --prefix "$out/first"
# Nothing may remember where it was installed.
mv "$out/first" "$out/prefix"
prefix=$out/prefix

# --- The program ---------------------------------------------------------------------------------

contains "$("$prefix/bin/mkvirtfs" --version)" '^mkvirtfs [0-9]'
contains "$(head -n 5 "$prefix/share/man/man1/mkvirtfs.1")" '^\.TH MKVIRTFS 1'
for file in README.md LICENSE docs/booting.md docs/idea.svg; do
  [[ -f $prefix/share/doc/mkvirtfs/$file ]] || fail "$file is not installed"
done
units=$prefix/lib/systemd/system
contains "$(cat "$units/mkvirtfs@.service")" '^ExecStart=/.*/bin/mkvirtfs serve \$ARGS$'
contains "$(cat "$units/mkvirtfs@.socket")" '^ListenStream='
# The helper is found where it was moved to.
[[ -x $prefix/libexec/mkvirtfs/mkvirtfs-reader ]] || fail "the reader is not installed"
[[ -x $prefix/libexec/mkvirtfs/mkvirtfs-init ]] || fail "the init of guests is not installed"
contains "$(file "$prefix/libexec/mkvirtfs/mkvirtfs-init")" 'statically linked'
echo text >"$work/text"
bsdtar -cf "$work/packed.7z" --format=7zip -C "$work" text
quietly "$prefix/bin/mkvirtfs" inspect "$work/packed.7z" --fs=ext4
mv "$prefix/libexec/mkvirtfs/mkvirtfs-reader" "$work/"
fails 1 'libexec/mkvirtfs/mkvirtfs-reader, which is needed to read .*packed.7z: No such file' \
  "$prefix/bin/mkvirtfs" inspect "$work/packed.7z" --fs=ext4
mv "$work/mkvirtfs-reader" "$prefix/libexec/mkvirtfs/"
completed() {
  local line=$1
  PATH=$prefix/bin:$PATH bash -c '
    source "$1/share/bash-completion/completions/mkvirtfs"
    read -ra COMP_WORDS <<<"$2"
    [[ $2 != *" " ]] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _mkvirtfs mkvirtfs "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[*]}"' bash "$prefix" "$line"
}
equal "$(completed 'mkvirtfs se')" serve
equal "$(completed 'mkvirtfs serve --exit-with')" --exit-with-parent
equal "$(completed 'mkvirtfs serve --fs = ext')" 'ext2 ext3 ext4'
equal "$(completed 'mkvirtfs serve --tls = r')" require
equal "$(completed 'mkvirtfs list --recu')" --recursive
contains "$(completed 'mkvirtfs ')" 'serve dump boot inspect ls cat stat extract list'

# --- The library ---------------------------------------------------------------------------------

headers=$prefix/include/mkvirtfs
[[ -f $headers/nbd/server.h && -f $headers/block/device.h && -f $headers/support/error.h ]] ||
  fail "headers are missing"
[[ ! -e $headers/net/tls_gnutls.h && ! -e $headers/nbd/server/testing ]] || fail "a private header is there"
[[ -f $headers/compose/prepare.h && ! -e $headers/compose/source_loader.h ]] || fail "the front door's headers"
if grep -rnE '[<"](gnutls|ext2fs|fmt|CLI|nlohmann|archive)(/|[._a-z]*\.h(pp)?[>"])|gnutls_|ext2_filsys|archive_entry|CLI::|nlohmann::' \
  "$headers"; then fail "a public header shows a foreign type"; fi
if grep -rlF "$build" "$prefix/lib" "$prefix/include" --include='*.cmake' --include='*.pc' --include='*.h'; then
  fail "an installed file knows the build tree"
fi

# All headers at once, by a compiler that knows nothing but pkg-config's words.
export PKG_CONFIG_PATH
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name mkvirtfs-nbd.pc)")
read -ra cflags < <(pkg-config --cflags mkvirtfs-nbd)
read -ra libs < <(pkg-config --libs mkvirtfs-nbd)
(cd "$prefix/include" && find mkvirtfs -name '*.h' -printf '#include <%p>\n' | sort) >"$work/all.cpp"
(($(wc -l <"$work/all.cpp") > 20)) || fail "few headers: $(cat "$work/all.cpp")"
quietly g++ -std=c++23 -Wall -Wextra -fsyntax-only "${cflags[@]}" "$work/all.cpp" &
syntax=$!
quietly g++ -std=c++23 "${cflags[@]}" "$examples/generated_disk.cpp" "${libs[@]}" -o "$out/generated_disk"
wait $syntax || exit 1

# And by CMake, which builds all three.
quietly cmake -S "$examples" -B "$out/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_COMPILE_WARNING_AS_ERROR=ON
quietly cmake --build "$out/build" -j "$(nproc)"
contains "$(cat "$out/build/CMakeCache.txt")" "mkvirtfs-nbd_DIR:PATH=$prefix/"

# --- The image library ---------------------------------------------------------------------------

read -ra cflags < <(pkg-config --cflags mkvirtfs)
read -ra libs < <(pkg-config --libs mkvirtfs)
quietly g++ -std=c++23 -Wall -Wextra -Wshadow -Wconversion -Werror "${cflags[@]}" "$image_example/directory_disk.cpp" \
  "${libs[@]}" -o "$out/directory_disk" &
by_pkg_config=$!
quietly cmake -S "$image_example" -B "$out/image" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_COMPILE_WARNING_AS_ERROR=ON
quietly cmake --build "$out/image"
wait $by_pkg_config || exit 1
contains "$(cat "$out/image/CMakeCache.txt")" "mkvirtfs_DIR:PATH=$prefix/"
[[ $(realpath "$(pkg-config --variable=reader mkvirtfs)") == "$(realpath "$prefix/libexec/mkvirtfs/mkvirtfs-reader")" ]] ||
  fail "the reader of pkg-config: $(pkg-config --variable=reader mkvirtfs)"
# Either half by itself, and what there is not.
mkdir "$work/parts"
cat >"$work/parts/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(parts LANGUAGES CXX)
find_package(mkvirtfs REQUIRED COMPONENTS nbd)
if(NOT TARGET mkvirtfs::nbd OR TARGET mkvirtfs::image)
  message(FATAL_ERROR "the NBD core alone")
endif()
find_package(mkvirtfs REQUIRED COMPONENTS image)
if(NOT TARGET mkvirtfs::image OR NOT TARGET mkvirtfs::mkvirtfs OR NOT EXISTS ${mkvirtfs_READER})
  message(FATAL_ERROR "the image library: ${mkvirtfs_READER}")
endif()
find_package(mkvirtfs COMPONENTS no-such)
if(mkvirtfs_FOUND)
  message(FATAL_ERROR "a component that there is not")
endif()
END
quietly cmake -S "$work/parts" -B "$work/parts/build" -DCMAKE_PREFIX_PATH="$prefix"
if "$out/build/generated_disk" 2>"$work/out"; then fail "generated_disk took no argument for one"; fi
