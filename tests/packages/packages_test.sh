#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# packages_test.sh KERNEL-DIR: makes the Debian packages, lets lintian look at them, and installs them into a root file
# system of Debian that has nothing else. There an unprivileged user runs every recipe of the documents, a project of its own
# is built against both libraries by CMake and by pkg-config, and systemd looks at the units.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"

((EUID == 0)) || { echo "the root file system of this test needs root" >&2; exit 1; }
kernel_dir=$1
"$here/../vm/fetch-kernel" "$kernel_dir" >/dev/null
source_root=$(cd "$here/../.." && pwd)
quietly() { "$@" >"$work/output" 2>&1 || fail "$*: $(tail -n 40 "$work/output")"; }

# --- The packages --------------------------------------------------------------------------------

mkdir "$work/source"
(cd "$source_root" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -P -t "$work/source")
equal "$(cd "$work/source" && dpkg-parsechangelog -S Version)" \
  "$(sed -n 's/^project(mkvirtfs VERSION \([0-9.]*\) .*/\1/p' "$work/source/CMakeLists.txt")" "version of debian/changelog"
(cd "$work/source" && DEB_BUILD_OPTIONS="parallel=$(nproc)" quietly dpkg-buildpackage -b -us -uc)
quietly lintian --allow-root --fail-on error,warning "$work"/*.changes
echo "lintian: $(grep -c . "$work/output" || true) remarks"
ls -sh "$work"/*.deb

# --- A machine that has them ---------------------------------------------------------------------

# What the recipes' checks call is there, too; of what mkvirtfs is built with, nothing.
judges=(systemd man-db git python3 g++ cmake make ninja-build pkg-config e2fsprogs dosfstools mtools genisoimage gnutls-bin libnbd-bin umoci
  nbdkit qemu-utils qemu-system-x86 iproute2 uidmap busybox-static cpio kmod fdisk gdisk file xz-utils attr acl nbd-client
  syslinux syslinux-common extlinux isolinux grub-pc-bin grub-common shim-signed shim-helpers-amd64-signed grub-efi-amd64-signed
  systemd-boot-efi sbsigntool ovmf xorriso libarchive-tools procps openssl)
machine=$work/machine
quietly mmdebstrap --mode=root --variant=minbase --include="$(IFS=,; echo "${judges[*]}")" \
  --customize-hook="mkdir \"\$1/packages\" && cp $work/*.deb \"\$1/packages/\"" \
  --customize-hook='chroot "$1" sh -c "apt-get install -y --no-install-recommends /packages/*.deb"' \
  --customize-hook='chroot "$1" useradd --create-home user' bookworm "$machine"
mkdir "$machine/project" "$machine/old"
cp -r "$work/source" "$machine/project/mkvirtfs"
mkdir -p "$machine/project/mkvirtfs/build"
cp -r "$kernel_dir" "$machine/project/mkvirtfs/build/vm-kernel"
cp "$MANIFEST" "$machine/usr/local/bin/manifest"
chmod -R a+rX "$machine/project"

# inside USER COMMAND...: with the machine as its root. (In a chroot nobody may make a user name space.)
inside() {
  # shellcheck disable=SC2016  # its own variables
  unshare --mount --pid --fork --propagation private sh -euc '
    machine=$1 user=$2
    shift 2
    mount --bind "$machine" "$machine"
    cd "$machine"
    mount -t proc proc proc
    mount --rbind /dev dev
    mount --rbind /sys sys
    mount -t tmpfs tmpfs run
    pivot_root . old
    umount -l /old
    cd /home/user
    exec setpriv --reuid="$user" --regid="$user" --init-groups --reset-env -- "$@"' sh "$machine" "$@"
}

contains "$(inside user mkvirtfs --version)" '^mkvirtfs [0-9]'
quietly inside user man --warnings -l /usr/share/man/man1/mkvirtfs.1.gz
[[ -f $machine/usr/share/doc/mkvirtfs/docs/booting.md ]] || fail "the documents are not installed"

for library in nbd image; do
  quietly inside user sh -euc "cp -r /usr/share/doc/libmkvirtfs-dev/examples/$library $library
    cmake -S $library -B $library/build && cmake --build $library/build"
done

quietly inside root sh -euc 'systemd-analyze verify mkvirtfs@x.service mkvirtfs@x.socket
  systemd-analyze security --offline=true --threshold=20 mkvirtfs@.service'

inside user env MKVIRTFS=/usr/bin/mkvirtfs MANIFEST=/usr/local/bin/manifest \
  /project/mkvirtfs/tests/interop/recipes.sh /project/mkvirtfs/build/vm-kernel /project/mkvirtfs/build >"$work/output" 2>&1 ||
  fail "recipes: $(tail -n 40 "$work/output")"
! grep -a SKIPPED "$work/output" || fail "recipes were passed over"
echo "recipes: $(tail -n 1 "$work/output")"
