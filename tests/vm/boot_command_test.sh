#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# boot_command_test.sh KERNEL-DIR WHAT: `mkvirtfs boot`, from the folder to what the guest says.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../interop/lib.sh"
source "$here/../vm/vm.sh"

export XDG_CACHE_HOME=$work/cache
words='loglevel=4 panic=-1'

# make_root: a folder with Debian's kernel, an initrd that mounts the root, and an init of one script.
make_root() {
  local kernel_root version
  kernel_root=$("$here/../vm/fetch-kernel" "$1")
  version=$(basename "$kernel_root"/lib/modules/*)
  mkdir -p "$work/root"/{boot,bin,sbin,etc,dev,proc}
  cp "$kernel_root/boot/vmlinuz-$version" "$work/root/boot/"
  make_switching_initrd "$work/root/boot/initrd.img-$version" "$kernel_root"
  cp "$(command -v busybox)" "$work/root/bin/busybox"
  cat >"$work/root/sbin/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
[ ! -e /written ] || echo "GUEST: what was written is there"
/bin/busybox touch /written && echo "GUEST: has a writable root with $(/bin/busybox df -m / | /bin/busybox awk 'END {print ($4 > 900)}')"
echo "GUEST: $(/bin/busybox nproc) processors $(/bin/busybox awk '/MemTotal/ {print ($2 > 300000)}' /proc/meminfo)"
[ -e /stay ] || exec /bin/busybox poweroff -f
echo "GUEST: waits"
while read -r line; do echo "GUEST: read <$line>"; done
END
  chmod 755 "$work/root/sbin/init"
}

# boot_machine SECONDS STATUS ARGUMENT...: the console is in $work/console, without what terminals are told.
boot_machine() {
  local seconds=$1 expected=$2 status=0
  shift 2
  timeout --kill-after=5 "$seconds" "$MKVIRTFS" boot "$@" </dev/null >"$work/console.raw" 2>"$work/messages" || status=$?
  tr -d '\r\0' <"$work/console.raw" >"$work/console"
  equal "$status" "$expected" "exit status of boot $* ($(cat "$work/messages")): $(tail -n 40 "$work/console")"
}

# The host's kernel is Debian's cloud kernel here, in a folder like /: boot/vmlinuz-VERSION, lib/modules/VERSION.
host_kernel() {
  local kernel_root
  kernel_root=$("$here/../vm/fetch-kernel" "$1")
  echo "$kernel_root"/boot/vmlinuz-*
}

# make_container KERNEL-DIR NAME CONFIG-ARGUMENT...: an image $work/app:NAME without a kernel.
make_container() {
  local name=$2
  shift 2
  if [[ ! -d $work/app ]]; then
    mkdir -p "$work/files"/{bin,etc,srv/data}
    cp "$(command -v busybox)" "$work/files/bin/busybox"
    "$work/files/bin/busybox" --install -s "$work/files/bin"
    rm "$work/files/bin/init" "$work/files/bin/linuxrc"
    for link in "$work/files/bin"/*; do [[ ! -L $link ]] || ln -sf busybox "$link"; done
    echo 'root:x:0:0:root:/root:/bin/sh
worker:x:1234:2345:worker:/srv:/bin/sh' >"$work/files/etc/passwd"
    echo 'root:x:0:
extra:x:77:worker' >"$work/files/etc/group"
    cat >"$work/files/bin/report" <<'END'
#!/bin/sh
echo "arguments <$*>"
echo "user $(id -u):$(id -g) $(id -G) in $(pwd) of $HOME with $GREETING"
echo "to standard error" >&2
exit 7
END
    chmod 755 "$work/files/bin/report"
    umoci init --layout "$work/app"
  fi
  umoci new --image "$work/app:$name"
  tar -c -C "$work/files" --owner=0 --group=0 --format=gnu . | umoci raw add-layer --image "$work/app:$name" /dev/stdin
  umoci config --image "$work/app:$name" "$@"
}

case $2 in
  container)
    make_container "$1" latest --config.entrypoint=/bin/report --config.entrypoint=first --config.cmd=default \
      --config.env='GREETING=two words' --config.user=worker --config.workingdir=/srv/data
    kernel=$(host_kernel "$1")
    boot_machine 120 7 "oci:$work/app:latest" --accel=tcg --kernel="$kernel"
    # Nothing else is printed than what the command prints.
    equal "$(cat "$work/console")" "arguments <first default>
user 1234:2345 2345 77 in /srv/data of /srv with two words
to standard error" "what is printed ($(cat "$work/messages"))"
    contains "$(cat "$work/messages")" "^mkvirtfs: the kernel is $kernel of this host$"
    ;;
  command)
    make_container "$1" plain
    kernel=$(host_kernel "$1")
    run() { boot_machine 120 "$1" "oci:$work/app:plain" --accel=tcg --kernel="$kernel" -- "${@:2}"; }
    # shellcheck disable=SC2016  # for the shell of the guest
    run 0 sh -c 'echo "$0 $1" | md5sum; ip addr show | grep -c 10.0.2.15/24; ip route | grep default; cat /etc/resolv.conf; touch /new; mount | grep " / "' -- '-x'
    equal "$(sed -n 1p "$work/console")" "$(echo '-- -x' | md5sum)" "the words"
    equal "$(sed -n 2p "$work/console")" 1 "the address ($(cat "$work/console"))"
    contains "$(sed -n 3p "$work/console")" '^default via 10.0.2.2 dev '
    equal "$(sed -n 4p "$work/console")" 'nameserver 10.0.2.3' "the name server"
    contains "$(sed -n 5p "$work/console")" '^/dev/root on / type ext4 \(rw|^/dev/vda on / type ext4 \(rw'
    run 127 no-such-program
    contains "$(cat "$work/console")" '^mkvirtfs: run no-such-program: No such file or directory$'
    # shellcheck disable=SC2016
    run 137 sh -c 'kill -9 $$'
    # A child that nobody waits for is reaped, and does not end the machine.
    run 3 sh -c '(sleep 0.2; echo late) & sh -c "sleep 0.1 & exit 0"; sleep 1; ps | grep -c "[Z]ombie\|[[]sleep[]]"; exit 3'
    equal "$(cat "$work/console")" $'late\n0' "what is printed"
    # A guest without a status is a failure of ours.
    boot_machine 120 125 "oci:$work/app:plain" --accel=tcg --kernel="$kernel" -- sh -c 'poweroff -f'
    contains "$(cat "$work/messages")" 'its command has no status'
    # A folder without a kernel, an init or a command.
    boot_machine 120 125 "$work/files" --accel=tcg --kernel="$kernel"
    contains "$(cat "$work/messages")" 'in the guest: the source has no init'
    fails 125 '^mkvirtfs: --kernel=.*/none: neither the source nor this host has such a file$' \
      "$MKVIRTFS" boot "$work/files" --kernel="$work/none"
    ;;
  ssh)
    # Debian's sshd answers to a key that lies in no source, and OpenSSH's client says so.
    make_root "$1"
    sshd=$("$here/../vm/fetch-sshd" "$1-sshd")
    export HOME=$work/home LD_LIBRARY_PATH=
    mkdir -p "$HOME/.ssh" "$work/root"/{usr/sbin,root,run/sshd,etc/ssh,modules}
    chmod 700 "$HOME/.ssh" "$work/root/root"
    fails 125 '\.ssh has no key that could be placed in the guest \(ssh-keygen makes one\)$' "$MKVIRTFS" boot "$work/root" --ssh
    ssh-keygen -q -t ed25519 -N '' -f "$HOME/.ssh/id_ed25519"
    fails 125 'the source has no sshd, and so nothing would answer' "$MKVIRTFS" boot "$work/root" --ssh
    fails 125 '^mkvirtfs: --ssh=none is not a port$' "$MKVIRTFS" boot "$work/root" --ssh=none
    cp "$sshd/usr/sbin/sshd" "$work/root/usr/sbin/"
    for library in $(LD_LIBRARY_PATH=$sshd/usr/lib/x86_64-linux-gnu ldd "$sshd/usr/sbin/sshd" | grep -oE '/[^ ]+'); do
      mkdir -p "$work/root/lib/x86_64-linux-gnu" "$work/root/lib64"
      case $library in
        /lib64/*) cp -L "$library" "$work/root/lib64/" ;;
        *) cp -L "$library" "$work/root/lib/x86_64-linux-gnu/" ;;
      esac
    done
    ssh-keygen -q -t ed25519 -N '' -f "$work/root/etc/ssh/host_key"
    printf 'HostKey /etc/ssh/host_key\nUsePAM no\n' >"$work/root/etc/ssh/sshd_config"
    printf 'root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n' >"$work/root/etc/passwd"
    echo 'root:*:19000:0:99999:7:::' >"$work/root/etc/shadow"
    ln -s busybox "$work/root/bin/sh"
    # The driver of the network, which the initrd does not load.
    kernel_root=$("$here/../vm/fetch-kernel" "$1")
    mkdir "$work/network"
    mkdir "$work/network/modules"
    add_modules "$work/network" "$kernel_root" virtio_net
    cp "$work/network/modules"/* "$work/root/modules/"
    cat >"$work/root/sbin/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mkdir -p /dev/pts && /bin/busybox mount -t devpts devpts /dev/pts
while read -r module; do /bin/busybox insmod "/modules/$module" 2>/dev/null; done </modules/order
/bin/busybox ip link set lo up
/bin/busybox ip link set eth0 up
/bin/busybox ip addr add 10.0.2.15/24 dev eth0
/usr/sbin/sshd -e -E /dev/console
echo "GUEST: waits"
while :; do /bin/busybox sleep 100; done
END
    : >"$work/console.raw"
    "$MKVIRTFS" boot "$work/root" --ssh --accel=tcg --append="$words" </dev/null >"$work/console.raw" 2>"$work/messages" &
    pid=$!
    server_pids+=("$pid")
    deadline=$((SECONDS + 120))
    until grep -q 'GUEST: waits' "$work/console.raw"; do
      ((SECONDS < deadline)) || fail "no guest: $(cat "$work/messages" "$work/console.raw")"
      sleep 0.2
    done
    read -ra login < <(sed -n 's/^mkvirtfs: \(ssh -p .*\)/\1/p' "$work/messages")
    said=$(timeout 60 "${login[@]:0:3}" -i "$HOME/.ssh/id_ed25519" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
      -o LogLevel=ERROR "${login[@]:3}" '/bin/busybox id -u; /bin/busybox stat -c %a:%u /root/.ssh/authorized_keys' 2>"$work/ssh.err") ||
      fail "ssh: $(cat "$work/ssh.err" "$work/messages"; tail -n 20 "$work/console.raw")"
    equal "$said" $'0\n644:0' "what the guest says"
    kill $pid
    wait $pid || true
    ;;
  share)
    # Root's right: virtiofsd makes a root of the directory.
    is_root || { skipped "a directory that is shared by virtiofsd"; exit 0; }
    make_container "$1" plain
    kernel=$(host_kernel "$1")
    mkdir "$work/shared"
    echo 'of the host' >"$work/shared/from-host"
    boot_machine 120 0 "oci:$work/app:plain" --accel=tcg --kernel="$kernel" --share="$work/shared" -- \
      sh -c 'cat /mnt/share/from-host && echo of the guest >/mnt/share/from-guest'
    equal "$(cat "$work/console")" 'of the host' "what the guest reads"
    equal "$(cat "$work/shared/from-guest")" 'of the guest' "what the guest writes"
    fails 125 '^mkvirtfs: --share=.*/from-host is not a directory$' \
      "$MKVIRTFS" boot "$work/files" --share="$work/shared/from-host"
    ;;
  signal)
    make_container "$1" plain
    kernel=$(host_kernel "$1")
    : >"$work/console.raw"
    "$MKVIRTFS" boot "oci:$work/app:plain" --accel=tcg --kernel="$kernel" -- \
      sh -c 'trap "echo got it; exit 9" TERM; echo ready; while :; do sleep 0.1; done' \
      </dev/null >"$work/console.raw" 2>"$work/messages" &
    pid=$!
    server_pids+=("$pid")
    deadline=$((SECONDS + 120))
    until grep -q '^ready' "$work/console.raw"; do
      ((SECONDS < deadline)) || fail "no command: $(cat "$work/messages" "$work/console.raw")"
      sleep 0.2
    done
    kill -TERM $pid
    status=0
    wait $pid || status=$?
    equal "$status" 9 "exit status"
    contains "$(cat "$work/console.raw")" '^got it'
    ;;
  read-only)
    # Formats that no system writes to have a tmpfs over them: a container image, and a system with an init.
    make_container "$1" plain
    kernel=$(host_kernel "$1")
    for fs in erofs iso; do
      boot_machine 120 0 "oci:$work/app:plain" --fs=$fs --accel=tcg --kernel="$kernel" -- \
        sh -c 'touch /new /bin/new && rm /bin/report && mount | grep " / "; [ ! -e /bin/report ] && ! dd if=/dev/zero of=/dev/vda count=1'
      contains "$(cat "$work/console")" '^root on / type overlay \(rw'
    done
    make_root "$1"
    kernel_root=$("$here/../vm/fetch-kernel" "$1")
    mkdir -p "$work/root/usr/lib"
    cp -a "$kernel_root/lib/modules" "$work/root/usr/lib/"
    sed -i 's/has a writable root with.*"$/has a writable root"/' "$work/root/sbin/init"
    boot_machine 120 0 "$work/root" --fs=erofs --accel=tcg --append="$words"
    contains "$(cat "$work/console")" '^GUEST: has a writable root$'
    # Without an initrd of its own a system has ours, with its own modules.
    rm "$work/root/boot"/initrd*
    boot_machine 120 0 "$work/root" --accel=tcg --append="$words"
    contains "$(cat "$work/console")" '^GUEST: has a writable root$'
    ;;
  folder)
    make_root "$1"
    boot_machine 120 0 "$work/root" --accel=tcg --cpus=2 --memory=512M --append="$words"
    contains "$(cat "$work/console")" '^GUEST: has a writable root with 1$'
    contains "$(cat "$work/console")" '^GUEST: 2 processors 1$'
    [[ ! -e $work/root/written ]] || fail "the source was written"
    # What needs no machine.
    line=$("$MKVIRTFS" boot "$work/root" --accel=kvm --print --memory=2G)
    contains "$line" '^qemu-system-x86_64 .*-machine q35 -accel kvm .*-m 2048M .*-kernel /.*/kernel -initrd /.*/initrd -append '
    mkdir -p "$work/nothing"
    fails 125 '^mkvirtfs: --kernel=boot/none: neither the source nor this host has such a file$' \
      "$MKVIRTFS" boot "$work/root" --kernel=boot/none
    fails 125 'bin/busybox is no kernel' "$MKVIRTFS" boot "$work/root" --kernel=bin/busybox
    fails 125 'qemu-system-x86_64 runs the machine, and is not installed \(package qemu-system-x86\)' \
      env PATH="$work/nothing" "$MKVIRTFS" boot "$work/root"
    fails 125 '^mkvirtfs: --memory=much is not a size' "$MKVIRTFS" boot "$work/root" --memory=much
    fails 125 'no option --memry .*--memory' "$MKVIRTFS" boot "$work/root" --memry=1G
    ;;
  keep)
    make_root "$1"
    for pattern in 'GUEST: has a writable root' '^GUEST: what was written is there$'; do
      boot_machine 120 0 "$work/root" --accel=tcg --append="$words" --keep="$work/overlay"
      contains "$(cat "$work/console")" "$pattern"
    done
    ;;
  terminal)
    # Keys go to the guest, and Ctrl-A X leaves it.
    make_root "$1"
    touch "$work/root/stay"
    python3 - "$MKVIRTFS" boot "$work/root" --accel=tcg --append="$words" <<'END'
import os, pty, select, sys, time

pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""

def wait_for(text):
    global seen
    deadline = time.monotonic() + 120
    while text not in seen:
        if time.monotonic() > deadline or not select.select([terminal], [], [], 120)[0]:
            sys.exit(f"no {text!r} in {seen.decode(errors='replace')}")
        seen += os.read(terminal, 65536)

wait_for(b"mkvirtfs: Ctrl-A X leaves the machine")
wait_for(b"GUEST: waits")
os.write(terminal, b"some words\r")
wait_for(b"GUEST: read <some words>")
os.write(terminal, b"\x01")
os.write(terminal, b"x")
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
if status != 130:
    sys.exit(f"exit status {status}")
END
    ;;
  stop)
    make_root "$1"
    touch "$work/root/stay"
    : >"$work/console.raw"
    "$MKVIRTFS" boot "$work/root" --accel=tcg --append="$words" </dev/null >"$work/console.raw" 2>"$work/messages" &
    pid=$!
    server_pids+=("$pid")
    deadline=$((SECONDS + 120))
    until grep -q 'GUEST: waits' "$work/console.raw"; do
      if ! kill -0 $pid 2>/dev/null || ((SECONDS >= deadline)); then
        fail "no guest: $(cat "$work/messages" "$work/console.raw")"
      fi
      sleep 0.2
    done
    kill -TERM $pid
    status=0
    wait $pid || status=$?
    equal "$status" 143 "exit status"
    ;;
  fallback)
    # A QEMU that says nothing with KVM, on a host that has no reason to distrust it.
    make_root "$1"
    mkdir "$work/bin"
    cat >"$work/bin/qemu-system-x86_64" <<END
#!/bin/bash
echo "\$*" >>"$work/calls"
case "\$*" in
  *"-accel tcg"*) echo "emulated"; exit 0 ;;
esac
case \$(cat "$work/how") in
  error) echo "KVM internal error. Suberror: 1" >&2; exec sleep 100 ;;
  ends) echo "failed to initialize kvm: Device or resource busy" >&2; exit 1 ;;
  silent) exec sleep 100 ;;
esac
END
    chmod 755 "$work/bin/qemu-system-x86_64"
    may_mount || exit 0
    cat >"$work/inside" <<END
set -e
mkdir -p "$work/dev"
mount -t tmpfs none "$work/dev"
for each in null zero urandom random tty; do touch "$work/dev/\$each"; mount --bind /dev/\$each "$work/dev/\$each"; done
touch "$work/dev/kvm"
mount --rbind "$work/dev" /dev
mount -t tmpfs none /sys/module
exec "\$@"
END
    for how in error ends silent; do
      echo $how >"$work/how"
      rm -rf "$work/calls" "$work/cache"
      status=0
      PATH=$work/bin:$PATH "${with_own_mounts[@]}" bash "$work/inside" "$MKVIRTFS" boot "$work/root" --keep="$work/overlay-$how" \
        </dev/null >"$work/console" 2>"$work/messages" || status=$?
      equal "$status" 0 "exit status where KVM $how ($(cat "$work/messages"))"
      equal "$(cat "$work/console")" emulated "console"
      contains "$(cat "$work/messages")" '^mkvirtfs: warning: KVM does not run the guest: it is started again, emulated \(TCG\)$'
      equal "$(grep -o 'accel [a-z]*' "$work/calls" | tr '\n' ' ')" 'accel kvm accel tcg ' "machines"
      # It is remembered.
      PATH=$work/bin:$PATH "${with_own_mounts[@]}" bash "$work/inside" "$MKVIRTFS" boot "$work/root" \
        </dev/null >"$work/console" 2>"$work/messages"
      contains "$(cat "$work/messages")" 'emulated \(TCG\): KVM has failed since this host was booted$'
      equal "$(wc -l <"$work/calls")" 3 "calls of QEMU"
    done
    # Who asks for KVM has it.
    status=0
    PATH=$work/bin:$PATH "${with_own_mounts[@]}" bash "$work/inside" "$MKVIRTFS" boot "$work/root" --accel=kvm \
      </dev/null >"$work/console" 2>"$work/messages" &
    pid=$!
    sleep 2
    kill $pid
    wait $pid || status=$?
    equal "$status" 143 "exit status"
    ;;
  bios | uefi | uefi-secure)
    # The loader of the disk starts it.
    source "$here/../vm/boot_lib.sh"
    make_tree "$1"
    options=(--boot=grub --table=gpt)
    [[ $2 != uefi ]] || options=(--boot=systemd-boot --esp=256M)
    [[ $2 != uefi-secure ]] || options=(--boot=uefi-signed --esp=256M)
    for run in first second; do
      boot_machine 150 0 "$work/tree" --accel=tcg --firmware="$2" "${options[@]}" --append="$words no_timer_check" \
        --keep="$work/overlay"
      contains "$(cat "$work/console")" "BOOTED: $(cat "$work/tree/marker") ext4 "
      [[ $2 != bios ]] || break
      # The variables are the machine's own.
      if [[ $run == first ]]; then
        [[ -s $work/overlay.uefi-vars ]] || fail "no variables were kept"
        cp "$work/overlay.uefi-vars" "$work/variables"
      fi
      [[ $2 == uefi-secure ]] || break
    done
    if [[ $2 == uefi-secure ]]; then
      # What nobody has signed does not start.
      status=0
      timeout 60 "$MKVIRTFS" boot "$work/tree" --accel=tcg --firmware=uefi-secure --boot=systemd-boot --esp=256M \
        </dev/null >"$work/console.raw" 2>"$work/messages" || status=$?
      equal "$status" 124 "exit status where nothing starts"
      contains "$(tr -d '\r\0' <"$work/console.raw")" 'Access Denied'
    fi
    fails 125 'starts a loader, and the image has none.*--boot=' "$MKVIRTFS" boot "$work/tree" --firmware="$2"
    ;;
  *) fail "no such boot: $2" ;;
esac
