#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# seeds.sh UNPACKED-DIR: volumes from which a program configures a machine, of directories, of links as Kubernetes
# makes them, and of files that lie in no directory.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

label_of() { blkid -p -o value -s LABEL "$1"; }
# The bytes of a file in an image, as foreign programs read them.
in_iso() { isoinfo -R -x "/$2" -i "$1"; }
in_fat() { mtype -i "$1" "::$2"; }

# A ConfigMap's volume: the files are links over a link to a directory.
volume=$work/configmap
mkdir -p "$volume/..2026_01_31"
printf '#cloud-config\n' >"$volume/..2026_01_31/user-data"
printf 'instance-id: i-1\n' >"$volume/..2026_01_31/meta-data"
ln -s ..2026_01_31 "$volume/..data"
ln -s ..data/user-data ..data/meta-data "$volume/"

"$MKVIRTFS" dump "$volume" --preset=cidata -o "$work/cm.iso" >/dev/null
equal "$(label_of "$work/cm.iso")" cidata
equal "$(isoinfo -R -l -i "$work/cm.iso" | grep -c -- '-> ..data/')" 2 "links in the ISO"
equal "$(in_iso "$work/cm.iso" ..2026_01_31/user-data)" '#cloud-config'
"$MKVIRTFS" dump "$volume" --preset=cidata --fs=fat -o "$work/cm.img" >/dev/null
equal "$(label_of "$work/cm.img")" CIDATA
fsck.fat -n "$work/cm.img" >"$work/out" || fail "fsck.fat: $(cat "$work/out")"
equal "$(in_fat "$work/cm.img" user-data)" '#cloud-config'
equal "$(in_fat "$work/cm.img" meta-data)" 'instance-id: i-1'
"$MKVIRTFS" dump "$volume" --preset=cidata --fs=fat --symlinks=skip -o "$work/no.img" 2>"$work/err" &&
  fail "a seed without its files"
contains "$(cat "$work/err")" 'user-data is a symlink, which the image leaves out \(try --symlinks=follow\)'

# Each preset, of standard input alone: the label and the file.
while read -r preset file iso fat; do
  for fs in iso fat; do
    image=$work/$preset.$fs
    echo "of $preset" | "$MKVIRTFS" dump --preset="$preset" --fs="$fs" --file "$file=-" -o "$image" >/dev/null
    equal "$("in_$fs" "$image" "$file")" "of $preset" "$preset on $fs"
  done
  [[ $iso == - ]] || equal "$(label_of "$work/$preset.iso")" "$iso" "label of $preset on iso"
  [[ $fat == - ]] || equal "$(label_of "$work/$preset.fat")" "$fat" "label of $preset on fat"
done <<'END'
config-drive openstack/latest/meta_data.json config-2 CONFIG-2
oemdrv ks.cfg OEMDRV OEMDRV
autounattend autounattend.xml - -
proxmox answer.toml PROXMOX-AIS PROXMOX-AIS
END
isoinfo -J -x '/autounattend.xml;1' -i "$work/autounattend.iso" | grep -q 'of autounattend' || fail "Windows sees no file"

# cloud-init's own detector, in a root directory of its own: it asks blkid for the disks, and gets this one.
detector=$("$here/fetch-unpacked" cloud-init usr/lib/cloud-init/ds-identify "$1")
machine=$work/machine
mkdir -p "$machine"/{sys/class/{dmi/id,block},proc/1,etc/cloud,var/lib/cloud,dev/disk} "$work/judge"
for file in proc/cmdline proc/1/cmdline proc/1/environ proc/uptime; do echo 0 >"$machine/$file"; done
printf '#!/bin/sh\nexec %s -p -o export "$SEED"\n' "$(command -v blkid)" >"$work/judge/blkid"
printf '#!/bin/sh\necho kvm\n' >"$work/judge/systemd-detect-virt"
chmod +x "$work/judge"/*
source_of() {
  rm -rf "$machine/run" && mkdir "$machine/run"
  SEED=$1 PATH=$work/judge:$PATH PATH_ROOT=$machine DI_LOG=$work/log sh "$detector" --force || true
  sed -n 's/^ *datasource_list: //p' "$machine/run/cloud-init/cloud.cfg"
}
equal "$(source_of "$work/cm.iso")" '[ NoCloud, None ]' "ds-identify: cidata on iso"
equal "$(source_of "$work/cm.img")" '[ NoCloud, None ]' "ds-identify: cidata on fat"
equal "$(source_of "$work/config-drive.iso")" '[ ConfigDrive, None ]' "ds-identify: config-drive on iso"
equal "$(source_of "$work/config-drive.fat")" '[ ConfigDrive, None ]' "ds-identify: config-drive on fat"
equal "$(source_of "$work/oemdrv.iso")" '[  ]' "ds-identify: no seed for cloud-init"

# The same input, the same image; another time stamp only with SOURCE_DATE_EPOCH.
seed() { printf '%s' "$1" | "$MKVIRTFS" dump --preset=cidata --file user-data=- --file meta-data=/dev/null -o - 2>/dev/null; }
equal "$(seed a | sha256sum)" "$(sleep 1; seed a | sha256sum)" "two seeds of one input"
[[ $(seed a | sha256sum) != $(SOURCE_DATE_EPOCH=1700000000 seed a | sha256sum) ]] || fail "no time stamp"

# Files over a tree, served; and as a source with --at.
mkdir -p "$work/base/etc"
echo old >"$work/base/etc/hosts"
echo new >"$work/hosts"
"$MKVIRTFS" serve "base=$work/base,fs=iso,file=etc/hosts=$work/hosts" --run "nbdcopy \"\$uri\" '$work/served.iso'"
equal "$(in_iso "$work/served.iso" etc/hosts)" new "a served file"
"$MKVIRTFS" dump "$work/base" --at=/etc/hosts "$work/hosts" --fs=iso -o "$work/at.iso" >/dev/null 2>"$work/err"
equal "$(in_iso "$work/at.iso" etc/hosts)" new "a file as a source"
contains "$(cat "$work/err")" 'hosts is no archive: it is the file /etc/hosts'

# What comes through a pipe is in a spool, and not in memory.
most_kib=$(head -c 400M /dev/zero | python3 -c '
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)' \
  "$MKVIRTFS" inspect --fs=ext4 --file big=-)
((most_kib < 100 * 1024)) || [[ ${MKVIRTFS_SANITIZED-} ]] || fail "$most_kib KiB for a pipe"
! echo x | "$MKVIRTFS" inspect --file x=- --spool-dir=none 2>"$work/err" >/dev/null || fail "a pipe without a spool"
contains "$(cat "$work/err")" 'spool'
