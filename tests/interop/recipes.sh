#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# recipes.sh KERNEL-DIR BUILD-DIR: every recipe of README.md, docs/ and the manual page is run as printed, in a
# directory that holds the names it uses; what comes out is judged. A recipe that is not known here fails.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"
source "$here/../vm/vm.sh"

# The recipes listen on fixed ports and addresses: in a network of this test's own, which is not where the
# kernel comes from.
kernel=$("$here/../vm/fetch-kernel" "$1")
if [[ -z ${MKVIRTFS_OWN_NETWORK-} ]]; then
  own=(unshare --net)
  ((EUID == 0)) || own=(unshare --user --map-current-user --keep-caps --net)
  if "${own[@]}" true 2>/dev/null; then
    MKVIRTFS_OWN_NETWORK=1 "${own[@]}" "$0" "$@"
  else
    skipped "recipes, which take a network of their own"
  fi
  exit
fi
ip link set lo up
ip address add 192.0.2.1/32 dev lo

root=$(cd "$here/../.." && pwd)
build=$2
quietly() { "$@" >"$work/output" 2>&1 || fail "$*: $(tail -n 20 "$work/output")"; }

# --- The recipes ---------------------------------------------------------------------------------

mkdir "$work/recipes"
(cd "$root" && python3 "$here/recipes.py" "$work/recipes" README.md docs/*.md cli/man/mkvirtfs.1) >"$work/list" ||
  fail "the recipes cannot be read"
(($(wc -l <"$work/list") >= 20)) || fail "few recipes: $(cat "$work/list")"

# Which check is for a recipe: a function of this file, or `not REASON` for one that no test can run.
check_of() {
  case $1 in
    ./test) echo counts_tests ;;
    *'docker save'*) echo "not it needs a docker daemon; interop: oci reads what docker saves" ;;
    './run serve examples/hello '*) echo console_block ;;
    'mkvirtfs boot ./rootfs') echo boots ;;
    'mkvirtfs boot oci:./app:latest'*) echo runs_command ;;
    *./rootfs*qemu-system-x86_64*) echo boots ;;
    *'dump ./rootfs '*--owner=0:0*--sha256*) echo dumps_with_digest ;;
    *'dump ./rootfs '*) echo dumps disk.img root ;;
    *'serve rootfs.tar.gz '*) echo serves_ext etc/hostname ;;
    *'dump ./base ./overrides '*) echo dumps_layers ;;
    *'serve oci:./app ./overrides --at=/etc ./etc') echo serves_ext etc/extra ;;
    *'serve oci:./app:latest'*) echo serves_ext etc/hostname ;;
    *'serve ./tree owners.mtree') echo serves_ext hello ;;
    *'dump ./esp --fs=fat32'*) echo dumps_esp ;;
    *'serve ./seed --preset=cidata'*) echo serves_seed ;;
    *'serve stick '*--boot=syslinux) echo serves_stick ;;
    *'serve stick '*--table=hybrid*--boot=syslinux,systemd-boot) echo serves_hybrid ;;
    *'dump floppy '*--boot=syslinux*) echo dumps_floppy ;;
    *'serve rootfs.tar '*--boot=extlinux) echo serves_bootable ;;
    *'dump live '*--boot=isolinux,uefi-signed*) echo dumps_for_both ;;
    *'dump live '*--boot=isolinux*) echo dumps_live ;;
    *'dump ./bootable '*--boot=grub*) echo dumps_bootable ;;
    *'serve --table=mbr '*--boot=syslinux,extlinux) echo serves_two_loaders ;;
    *'sbsign '*'--loader='*) echo serves_own_loader ;;
    *'serve rootfs '*--esp=256M*--boot=systemd-boot) echo serves_efi 2 boot/vmlinuz loader/entries/linux.conf ;;
    *'serve rootfs '*--esp=256M*--boot=uefi-signed) echo serves_efi 2 boot/vmlinuz EFI/debian/grub.cfg ;;
    *'serve --partition esp,'*--boot=uki) echo serves_efi 1 EFI/BOOT/BOOTX64.EFI ;;
    *'serve --partition ./esp,'*'--partition swap,'*) echo serves_partitions ;;
    *--tls-psk=keys.psk*) echo serves_with_key ;;
    *'serve ./export '*127.0.0.1:10809) echo serves_ext hello ;;
    *'serve ./site '*192.0.2.1:10809) echo serves_ext hello ;;
    *'serve root=./rootfs'*tools/b=./b*) echo serves_two ;;
    *"serve ./fixture "*"--clone='job-*' --listen"*) echo serves_clones ;;
    *"serve ./fixture "*"--clone='job-*' "*'ctl ./ctl diff job-7 --files'*) echo shows_changes ;;
    *'list nbd://127.0.0.1/tools') echo lists ;;
    *'qemu-nbd --fork '*'ls -l "nbd+unix:'*) echo looks_over_nbd ;;
    *'ls -l old.img:/etc'*) echo looks_inside ;;
    *'inspect ./rootfs '*--map*) echo looks_up ;;
  esac
}

# --- What they are run in ------------------------------------------------------------------------

# On the path, the program notes its process, so that a server can be stopped as by Ctrl-C.
mkdir "$work/bin"
cat >"$work/bin/mkvirtfs" <<SCRIPT
#!/bin/bash
echo \$\$ >>"\$PWD/.processes"
exec "$MKVIRTFS" "\$@"
SCRIPT
# The emulated timer of a busy host fails the kernel's check, and a panic ends the test at once.
cat >"$work/bin/qemu-system-x86_64" <<SCRIPT
#!/bin/bash
arguments=()
while ((\$#)); do
  arguments+=("\$1")
  if [[ \$1 == -append ]]; then
    shift
    arguments+=("\$1 no_timer_check panic=-1")
  fi
  shift
done
[[ " \${arguments[*]} " == *" -accel "* ]] || arguments+=(-accel tcg -no-reboot)
exec $(command -v qemu-system-x86_64) "\${arguments[@]}"
SCRIPT
chmod 755 "$work"/bin/*
export PATH=$work/bin:$PATH MKVIRTFS XDG_CACHE_HOME=$work/cache

prepared=$work/prepared
mkdir -p "$prepared"/{rootfs/{bin,sbin,etc,dev,proc},base/etc,overrides/etc,etc-extra,etc,esp/EFI/BOOT,seed,export,b,fixture,site,tree}
cd "$prepared"
cp "$kernel"/boot/vmlinuz-* rootfs/vmlinuz
make_switching_initrd rootfs/initrd.img "$kernel"
cp "$(command -v busybox)" rootfs/bin/busybox
ln -s busybox rootfs/bin/sh
echo box >rootfs/etc/hostname
cat >rootfs/sbin/init <<'INIT'
#!/bin/busybox sh
/bin/busybox touch /written && echo "GUEST: $(/bin/busybox cat /etc/hostname) has a writable root"
/bin/busybox poweroff -f
INIT
chmod 755 rootfs/sbin/init
tar -czf rootfs.tar.gz -C rootfs etc
quietly mke2fs -t ext4 -d rootfs old.img 100M
for name in stick live bootable; do
  mkdir -p $name/boot
  cp rootfs/vmlinuz $name/boot/vmlinuz-1
  cp rootfs/initrd.img $name/boot/initrd.img-1
done
tar -cf rootfs.tar -C bootable boot
mkdir floppy
printf 'DEFAULT go\nLABEL go\n  BOOT payload.bin\n' >floppy/syslinux.cfg
head -c 512 /dev/zero >floppy/payload.bin
echo base | tee base/etc/name >base/etc/kept
echo overrides >overrides/etc/name
echo extra | tee etc/extra >etc-extra/extra
noise 70000 >esp/EFI/BOOT/BOOTX64.EFI
printf 'instance-id: i-1\n' >seed/meta-data
printf '#cloud-config\n' >seed/user-data
for name in export b site tree; do echo hello >$name/hello; done
printf '#mtree\n./hello type=file uid=77 gid=78 mode=0600\n' >owners.mtree
noise 70000 >fixture/touched
quietly psktool -u alice -p keys.psk
quietly umoci init --layout app
quietly umoci new --image app:latest
quietly umoci raw add-layer --image app:latest <(tar -c -C rootfs --owner=0 --group=0 etc bin) || true
cp -r "$root/examples" .
# ./run is `mkvirtfs ARGS` behind a build.
printf '#!/bin/sh\nexec mkvirtfs "$@"\n' >run
chmod 755 run

# --- Running and judging -------------------------------------------------------------------------

# Each recipe has a copy of the directory to itself. Sets $recipe and $place for the checks.
enter() {
  recipe=$work/recipes/$1
  place=$work/run-$1
  cp -a "$prepared" "$place"
  cd "$place"
}

run_to_end() { timeout --kill-after=5 "${1-120}" bash -eu "$recipe" >out 2>err </dev/null || fail "exit status $?: $(tail -n 20 err out)"; }

# start_recipe [FILE]: a recipe that serves until it is stopped; sets $uri.
start_recipe() {
  : >out
  bash -eu "${1-$recipe}" >out 2>err </dev/null &
  server_pid=$! server_log=$place/err
  server_pids+=("$server_pid")
  local deadline=$((SECONDS + 60))
  until uri=$(grep -m 1 '^nbd' out); do
    kill -0 "$server_pid" 2>/dev/null || fail "it ended before it served"
    ((SECONDS < deadline)) || fail "it served nothing in time"
    sleep 0.05
  done
}

# Ctrl-C for every server of the recipe: all must end well.
stop_recipe() {
  local process status=0
  while read -r process; do
    server_pids+=("$process")
    kill -TERM "$process" 2>/dev/null || true
  done <.processes
  wait "$server_pid" || status=$?
  equal "$status" 0 "exit status after SIGTERM ($(cat err))"
}

sound_ext() {
  quietly e2fsck -fn "$1"
  shift
}
has_file() { contains "$(debugfs -R "stat /$2" "$1" 2>&1)" 'Type: regular'; }

fetch() { timeout 60 nbdcopy "${2-$uri}" "$1" || fail "nbdcopy ${2-$uri}: exit status $?"; }

serves_ext() {
  start_recipe
  fetch copy
  sound_ext copy
  has_file copy "$1"
  stop_recipe
}

dumps() {
  run_to_end
  sound_ext "$1"
  equal "$(e2label "$1")" "$2" label
}

dumps_with_digest() {
  dumps root.img root
  equal "$(grep -oE '[0-9a-f]{64}' out)" "$(sha256sum root.img | cut -d' ' -f1)" digest
  contains "$(debugfs -R 'stat /etc/hostname' root.img 2>&1)" 'User: +0 +Group: +0'
}

dumps_layers() {
  run_to_end
  sound_ext root.img
  equal "$(debugfs -R 'cat /etc/name' root.img 2>/dev/null)" overrides "the later layer"
  equal "$(debugfs -R 'cat /etc/kept' root.img 2>/dev/null)" base "the first layer"
  equal "$(debugfs -R 'cat /etc/extra' root.img 2>/dev/null)" extra "what lies at /etc"
}

dumps_esp() {
  run_to_end
  quietly fsck.fat -n esp.img
  mcopy -i esp.img ::/EFI/BOOT/BOOTX64.EFI from-image
  same from-image esp/EFI/BOOT/BOOTX64.EFI
  contains "$(mlabel -i esp.img -s ::)" 'ESP'
}

serves_seed() {
  start_recipe
  fetch copy
  contains "$(isoinfo -d -i copy)" '^Volume id: cidata$'
  equal "$(isoinfo -R -i copy -x /user-data)" '#cloud-config' user-data
  stop_recipe
}

# has_partitions FILE EXPECTED: type and boot flag of each, as sfdisk prints them.
has_partitions() {
  equal "$(sfdisk --json "$1" | python3 -c 'import json, sys
for each in json.load(sys.stdin)["partitiontable"]["partitions"]:
    print(each["type"], each.get("bootable", False))')" "$2" "partitions of $1"
}

serves_stick() {
  start_recipe
  fetch copy
  has_partitions copy 'c True'
  contains "$(mdir -b -i copy@@1M ::)" 'ldlinux\.sys'
  contains "$(mtype -i copy@@1M ::/syslinux.cfg)" 'vmlinuz-1'
  stop_recipe
}

serves_hybrid() {
  start_recipe
  fetch copy
  contains "$(sgdisk -v copy)" 'No problems found'
  contains "$(mdir -b -i copy@@1M ::)" 'ldlinux\.sys'
  contains "$(mdir -b -i copy@@1M ::/EFI/BOOT)" 'BOOTX64\.EFI'
  stop_recipe
}

dumps_floppy() {
  run_to_end
  quietly fsck.fat -n floppy.img
  contains "$(mdir -b -i floppy.img ::)" 'ldlinux\.sys'
}

serves_bootable() {
  start_recipe
  fetch copy
  has_partitions copy '83 True'
  quietly dd if=copy of=part bs=1M skip=1
  contains "$(debugfs -R 'cat /boot/extlinux/extlinux.conf' part 2>/dev/null)" 'root=PARTUUID='
  stop_recipe
}

dumps_live() {
  run_to_end
  contains "$(xorriso -indev live.iso -report_el_torito plain 2>/dev/null)" 'isolinux\.bin'
  contains "$(isoinfo -R -i live.iso -x /isolinux/isolinux.cfg)" 'vmlinuz-1'
}

dumps_for_both() {
  run_to_end
  xorriso -indev both.iso -report_el_torito plain >report 2>/dev/null
  contains "$(cat report)" 'isolinux\.bin'
  contains "$(cat report)" 'UEFI'
}

dumps_bootable() {
  run_to_end
  has_partitions boot.img '0FC63DAF-8483-4772-8E79-3D69D8477DE4 False
21686148-6449-6E6F-744E-656564454649 False'
  quietly sgdisk -v boot.img
}

serves_partitions() {
  start_recipe
  fetch copy
  has_partitions copy 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B False
4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709 False
0657FD6D-A4AB-43C4-84E5-0933C84B4F4F False'
  stop_recipe
}

serves_two_loaders() {
  start_recipe
  fetch copy
  has_partitions copy 'c True
83 False'
  stop_recipe
}

# serves_efi NUMBER FILE...: these lie in the EFI system partition of that number.
serves_efi() {
  local start number=$1 file
  shift
  start_recipe
  fetch copy
  equal "$(sfdisk --part-type copy "$number")" C12A7328-F81F-11D2-BA4B-00A0C93EC93B "the type of partition $number"
  start=$(sfdisk --json copy | python3 -c "import json, sys
print(json.load(sys.stdin)['partitiontable']['partitions'][$number - 1]['start'] * 512)")
  for file in "$@"; do contains "$(mdir -b -i "copy@@$start" "::$file")" "/${file##*/}"; done
  stop_recipe
}

serves_own_loader() {
  certtool --generate-privkey --outfile my.key >log 2>&1 || fail "certtool: $(cat log)"
  printf 'cn = mine\nexpiration_days = 10\nsigning_key\n' >template
  quietly certtool --generate-self-signed --load-privkey my.key --template template --outfile my.crt
  serves_efi 2 EFI/BOOT/BOOTX64.EFI
  contains "$(sbverify --cert my.crt linux.signed.efi 2>&1)" '^Signature verification OK'
}

serves_with_key() {
  start_recipe
  contains "$(nbdinfo --size "nbds://alice@127.0.0.1/?tls-psk-file=$place/keys.psk")" '^[0-9]+$'
  ! nbdinfo --size nbd://127.0.0.1/ >/dev/null 2>&1 || fail "it serves who has no key"
  stop_recipe
}

serves_two() {
  start_recipe
  fetch root-copy nbd://127.0.0.1/root
  fetch b-copy nbd://127.0.0.1/tools/b
  sound_ext root-copy
  sound_ext b-copy
  has_file root-copy etc/hostname
  equal "$(e2label b-copy)" B label
  stop_recipe
}

# Writes into the file `touched` of an export whose image is in `copy`.
write_into_file() {
  local block
  block=$(debugfs -R 'bmap /touched 0' copy 2>/dev/null)
  quietly qemu-io -f raw -c "write -P 7 $((block * 4096)) 4096" "$1"
}

serves_clones() {
  start_recipe
  fetch copy nbd://127.0.0.1/job-1
  write_into_file nbd://127.0.0.1/job-1
  fetch second nbd://127.0.0.1/job-2
  same copy second
  fetch again nbd://127.0.0.1/job-1
  ! cmp -s copy again || fail "what job-1 wrote is not there"
  stop_recipe
}

# The first line serves, the last is typed when job 7 has run.
shows_changes() {
  grep -v ' ctl ./ctl ' "$recipe" >serve
  grep ' ctl ./ctl ' "$recipe" >ask
  start_recipe serve
  fetch copy "nbd+unix:///job-7?socket=$place/nbd"
  write_into_file "nbd+unix:///job-7?socket=$place/nbd"
  contains "$(bash -eu ask)" '^ *4096 +file touched$'
  stop_recipe
}

lists() {
  # The server that the recipes before it start.
  grep -rlF 'serve root=./rootfs,fs=ext4 tools/b=./b' "$work"/recipes/* | head -n 1 >server
  start_recipe "$(cat server)"
  contains "$(bash -eu "$recipe")" "^tools/b +ext2 image of b$"
  stop_recipe
}

looks_inside() {
  run_to_end
  contains "$(cat out)" '^-rw-r--r-- .* hostname$'
  contains "$(cat out)" '^box$'
  contains "$(cat out)" '^\./etc-of-old: 1 entry'
  same etc-of-old/hostname rootfs/etc/hostname
}

looks_over_nbd() {
  quietly mkvirtfs dump --partition rootfs,fs=ext4 --table=gpt -o machine.img
  quietly qemu-img convert -O qcow2 machine.img machine.qcow2
  run_to_end
  contains "$(cat out)" '^-rw-r--r-- .* hostname$'
}

looks_up() {
  noise 130000000 >rootfs/noise
  run_to_end
  contains "$(cat out)" 'noise'
}

# The guest says it on its serial port, which is where the recipe runs.
boots() {
  run_to_end 300
  contains "$(tr -d '\r' <out)" '^GUEST: box has a writable root$'
  [[ ! -e rootfs/written ]] || fail "the source was written"
}

# A kernel of this host is taken, with its modules: a machine of CI has none, and so it is shown one.
runs_command() {
  mkdir boot
  ln -s "$kernel"/boot/vmlinuz-* "$kernel"/lib/modules/*/* boot/
  printf 'mount --bind boot /boot\n. %q\n' "$recipe" >with_kernel
  timeout --kill-after=5 300 unshare --mount bash -eu with_kernel >out 2>err </dev/null ||
    fail "exit status $?: $(tail -n 20 err out)"
  equal "$(tr -d '\r' <out)" 'app runs in a machine of its own'
}

# ./test runs this test. How many there are need not be true to the last one, but nearly.
counts_tests() {
  local said are
  said=$(grep -oE 'out of [0-9]+$' "$recipe.output" | grep -oE '[0-9]+')
  are=$(ctest --test-dir "$build" -N | grep -oE '^Total Tests: [0-9]+' | grep -oE '[0-9]+')
  ((said <= are && are < said + 100)) || fail "there are $are tests, not $said"
}

console_block() {
  run_to_end
  # A UUID is of the tree's time stamps, a socket has a new name each time.
  local hide='s/UUID=[0-9a-f-]*/UUID=/; s/socket=.*/socket=/'
  diff <(sed "$hide" "$recipe.output") <(sed "$hide" out) || fail "it prints something else than it is said to"
}

used=()
declare -A places
while IFS=$'\t' read -r number where <&3; do
  check="" arguments=""
  text=$(grep -v '^#' "$work/recipes/$number")
  if [[ ${places[$text]-} && ! -e $work/recipes/$number.output ]]; then
    echo "$where: as ${places[$text]}"
    continue
  fi
  places[$text]=$where
  read -r check arguments < <(check_of "$text") || true
  [[ $check ]] || fail "$where: no check knows this recipe: $(cat "$work/recipes/$number")"
  used+=("$check")
  if [[ $check == not ]]; then
    echo "$where: not run: $arguments"
    continue
  fi
  enter "$number"
  echo "$where: $check"
  # shellcheck disable=SC2086  # arguments are words
  "$check" $arguments
  cd "$work"
  rm -rf "$place"
done 3<"$work/list"
# A check that no recipe asks for is for one that is gone.
equal "$(printf '%s\n' "${used[@]}" | sort -u)" \
  "$(declare -f check_of | grep -oE 'echo "?[a-z_]+' | grep -oE '[a-z_]+$' | sort -u)" "checks that were used"
