#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""bench/run.py BUILD-DIR [NAME...]: measures mkvirtfs beside its peers, prints a Markdown table.

Every row is the median of several runs; runs of mkvirtfs and of its peer alternate, so that both
meet the same moods of the machine; the page cache is warm. The trees are made on first use, below
MKVIRTFS_BENCH_DIR (default: build/bench-data). Progress goes to stderr.
"""
import bisect
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

import nbd

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(sys.argv[1]).resolve() / "bin"
MKVIRTFS = str(BIN / "mkvirtfs")
WALK = str(BIN / "walk")
BARE_LOOP = str(BIN / "bare_loop")
BARE_INFLATE = str(BIN / "bare_inflate")
DATA = pathlib.Path(os.environ.get("MKVIRTFS_BENCH_DIR", ROOT / "build/bench-data"))
RUNS = 5


def tell(text):
    print(text, file=sys.stderr, flush=True)


# The trees.


def made(name, make):
    """The tree of this name; half-made ones are never taken for whole ones."""
    path = DATA / name
    if not path.exists():
        tell(f"making the tree {name} ...")
        DATA.mkdir(parents=True, exist_ok=True)
        half = DATA / f"{name}.half"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        make(half)
        half.rename(path)
    subprocess.run([WALK, path], check=True, stdout=subprocess.DEVNULL)  # warms the cache
    return str(path)


def make_linux_source(path):
    with tempfile.TemporaryDirectory(dir=DATA) as scratch:
        subprocess.run(["apt-get", "-q", "download", "linux-source-6.1"], cwd=scratch, check=True,
                       stdout=subprocess.DEVNULL)
        package, = pathlib.Path(scratch).glob("*.deb")
        subprocess.run(["dpkg", "-x", package, scratch], check=True)
        archive, = pathlib.Path(scratch).glob("usr/src/linux-source-*.tar.xz")
        subprocess.run(["tar", "-xf", archive, "-C", path, "--strip-components=1"], check=True)


def make_flat(path):
    for number in range(200_000):
        (path / f"file-{number:06d}.txt").write_text(f"file {number:06d}\n")


def make_million(path):
    for directory in range(1000):
        below = path / f"dir-{directory:04d}"
        below.mkdir()
        for number in range(1000):
            # Half of the files have a block, half are empty.
            (below / f"file-{number:04d}").write_text("data\n" if number % 2 else "")


def make_gigabytes(path, count):
    for number in range(count):
        with open(path / f"{number}.bin", "wb") as file:
            for _ in range(1024):
                file.write(random.randbytes(1 << 20))


def make_gigabyte(path):
    make_gigabytes(path, 1)


def make_large(path):
    make_gigabytes(path, 4)


def make_many(path):
    """100,000 files, 1 GiB."""
    data = random.randbytes(1 << 20)
    for directory in range(100):
        below = path / f"directory {directory}"
        below.mkdir()
        for number in range(1000):
            at = (directory * 1000 + number) * 7 % (1 << 19)
            (below / f"document {number:04d}.text").write_bytes(data[at:at + 10737])


def linux_source():
    path = made("linux-source", make_linux_source)
    warm_files(path)
    return path


def warm_files(path):
    subprocess.run(["sh", "-c", 'find "$1" -type f -print0 | xargs -0 cat >/dev/null', "-", path],
                   check=True)


# Measuring.


def seconds(*command, **keywords):
    started = time.monotonic()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   **keywords)
    return time.monotonic() - started


def scratch():
    """A place for images, on the disk that the trees are on."""
    return tempfile.TemporaryDirectory(dir=DATA, prefix="run-")


def sockets():
    """A place for sockets, whose paths must be short."""
    return tempfile.TemporaryDirectory(dir="/tmp")


@contextlib.contextmanager
def server(command, socket):
    """A running server and its start time."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not os.path.exists(socket):
            assert process.poll() is None, command
            time.sleep(0.0002)
        yield process, started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def mkvirtfs_serve(tree, socket):
    return [MKVIRTFS, "serve", tree, "--fs=ext4", "-U", socket]


def nbdkit(socket, *plugin, writable=False):
    return ["nbdkit", "-f", *([] if writable else ["-r"]), "-U", socket, *plugin]


def first_block(socket):
    handle = nbd.NBD()
    while True:
        try:
            handle.connect_unix(socket)
            break
        except nbd.Error:  # the socket is there a moment before its listener
            handle = nbd.NBD()
    handle.pread(4096, 0)
    handle.shutdown()


def ready(command_of):
    """Seconds from the start of the process to its first block, and its peak memory in bytes."""
    with sockets() as place:
        socket = f"{place}/s"
        with server(command_of(socket), socket) as (process, started):
            first_block(socket)
            elapsed = time.monotonic() - started
            with open(f"/proc/{process.pid}/status") as status:
                peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
            return elapsed, peak


def paired(runs, *measurements):
    """Medians of measurements that take turns."""
    values = [[] for _ in measurements]
    for _ in range(runs):
        for collected, measure in zip(values, measurements):
            collected.append(measure())
    return [statistics.median(collected) for collected in values]


def fio(result, kind, block, *arguments):
    """Requests a second; `result` is a file, as not all engines leave standard output alone."""
    subprocess.run(["fio", "--name=r", f"--rw={kind}", f"--bs={block}", *arguments, "--time_based",
                    "--runtime=3", "--output-format=json", f"--output={result}"], check=True,
                   stdout=subprocess.DEVNULL)
    with open(result) as file:
        text = file.read()
    each = json.loads(text[text.index("{"):])["jobs"]
    return sum(job["read" if kind == "randread" else "write"]["iops"] for job in each)


def random_io(socket, block, depth, jobs=1, kind="randread"):
    return fio(f"{socket}.json", kind, block, "--ioengine=nbd",
               f"--uri=nbd+unix:///?socket={socket}", f"--iodepth={depth}", f"--numjobs={jobs}")


def bare_loop(file, reply_bytes, depth, connections=1, seconds_long=3):
    """What the kernel can do: replies a second, without a protocol."""
    answer = subprocess.run([BARE_LOOP, file, str(reply_bytes), str(depth), str(connections),
                             str(seconds_long)], check=True, stdout=subprocess.PIPE).stdout
    return float(answer)


# The rows.

rows = []


def row(what, ours, peer, peer_value, relation, target, met):
    rows.append((what, ours, f"{peer}: {peer_value}", relation, target,
                 "" if not target else "yes" if met else "**no**"))
    tell(f"{what}: {ours}; {peer}: {peer_value}; {relation} (target {target})")


def s(value):
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def faster(what, ours, peer_name, theirs, at_least):
    row(what, s(ours), peer_name, s(theirs), f"{theirs / ours:.2f}x faster", f">= {at_least}x faster",
        theirs / ours >= at_least)


def within(what, ours, peer_name, theirs, at_most):
    row(what, s(ours), peer_name, s(theirs), f"{ours / theirs:.2f}x its time", f"<= {at_most}x",
        ours / theirs <= at_most)


def image_size(tree):
    facts = subprocess.run([MKVIRTFS, "inspect", tree, "--fs=ext4", "--json"], check=True,
                           stdout=subprocess.PIPE).stdout
    return json.loads(facts)["image"]["size_bytes"]


def mke2fs(tree, image, size):
    if os.path.exists(image):
        os.unlink(image)
    with open(image, "wb") as file:
        file.truncate(size)
    return seconds("/sbin/mke2fs", "-q", "-t", "ext4", "-d", tree, image)


def bench_ready():
    tree = linux_source()
    what = "ready, linux-source (84k names, 1.3 GB)"
    ours, found = paired(
        2 * RUNS + 1, lambda: ready(lambda socket: mkvirtfs_serve(tree, socket))[0],
        lambda: seconds("find", tree, "-printf", "%s"))
    within(what, ours, "find -printf %s", found, 1.3)
    ours, theirs = paired(
        RUNS, lambda: ready(lambda socket: mkvirtfs_serve(tree, socket))[0],
        lambda: ready(lambda socket: nbdkit(socket, "linuxdisk", f"dir={tree}", "type=ext4"))[0])
    faster(what, ours, "nbdkit linuxdisk", theirs, 30)


def bench_flat():
    tree = made("flat200k", make_flat)
    ours, found = paired(RUNS, lambda: ready(lambda socket: mkvirtfs_serve(tree, socket))[0],
                         lambda: seconds("find", tree, "-printf", "%s"))
    row("ready, one directory of 200,000 files", s(ours), "find -printf %s", s(found),
        f"{ours / found:.2f}x its time", "<= 1.0 s (mke2fs -d: over 50 minutes)", ours <= 1.0)


def bench_million():
    tree = made("million", make_million)
    peaks = []

    def measure():
        elapsed, peak = ready(lambda socket: mkvirtfs_serve(tree, socket))
        peaks.append(peak)
        return elapsed

    ours, walked = paired(RUNS, measure, lambda: seconds(WALK, tree))
    within("ready, 1,000,000 files", ours, "bare parallel stat walk", walked, 2)
    peak = max(peaks)
    row("peak memory, 1,000,000 files", f"{peak / 1e6:.0f} MB", "an entry",
        f"{peak / 1_001_000:.0f} bytes", "", "<= 170 MB", peak <= 170e6)


def bench_large():
    tree = made("large", make_large)
    ours, start = paired(4 * RUNS + 1, lambda: ready(lambda socket: mkvirtfs_serve(tree, socket))[0],
                         lambda: seconds(MKVIRTFS, "--version"))
    row("ready, 4 files of 1 GiB", f"{ours * 1000:.1f} ms", "mkvirtfs --version",
        f"{start * 1000:.1f} ms", f"{(ours - start) * 1000:.1f} ms more", "<= 20 ms more",
        ours - start <= 0.020)


def bench_reads():
    tree = linux_source()
    with scratch() as images, sockets() as place:
        image = f"{images}/image"
        mke2fs(tree, image, image_size(tree))
        warm_files(images)
        ours_socket, peer_socket = f"{place}/ours", f"{place}/peer"
        with server(mkvirtfs_serve(tree, ours_socket), ours_socket), \
                server(nbdkit(peer_socket, "file", image), peer_socket):
            def copy(socket):
                return seconds("nbdcopy", f"nbd+unix:///?socket={socket}", "null:")

            first_block(ours_socket)
            copy(ours_socket)
            ours, theirs = paired(2 * RUNS + 1, lambda: copy(ours_socket), lambda: copy(peer_socket))
            faster("nbdcopy of linux-source to null", ours, "nbdkit file, ext4 image", theirs, 1.5)
            ours, theirs = paired(RUNS, lambda: random_io(ours_socket, "4k", 16),
                                  lambda: random_io(peer_socket, "4k", 16))
            row("4 KiB random reads, depth 16", f"{ours / 1000:.1f}k a second",
                "nbdkit file, ext4 image", f"{theirs / 1000:.1f}k a second",
                f"{ours / theirs:.2f}x", ">= 1.3x", ours / theirs >= 1.3)


def bench_core():
    """The server core alone: one file of 1 GiB, a Unix socket."""
    tree = made("gigabyte", make_gigabyte)
    warm_files(tree)
    file = f"{tree}/0.bin"
    size = os.path.getsize(file)
    with sockets() as place, contextlib.ExitStack() as servers:
        ours, nbdkit_file, qemu = (f"{place}/{name}" for name in ("ours", "nbdkit", "qemu"))
        for command, socket in [
                (mkvirtfs_serve(tree, ours), ours), (nbdkit(nbdkit_file, "file", file), nbdkit_file),
                (["qemu-nbd", "-r", "-t", "-e", "8", "-f", "raw", "-k", qemu, file], qemu)]:
            servers.enter_context(server(command, socket))

        def copy(socket):
            return seconds("nbdcopy", f"nbd+unix:///?socket={socket}", "null:")

        for socket in (ours, nbdkit_file, qemu):
            first_block(socket)
            copy(socket)
        mine, *others, bare = paired(
            2 * RUNS + 1, *(lambda socket=socket: copy(socket) for socket in (ours, nbdkit_file, qemu)),
            lambda: size / (bare_loop(file, 256 << 10, 16, 2, 0) * (256 << 10)))
        for peer, theirs, target in zip(("nbdkit file", "qemu-nbd", "bare loop"), (*others, bare),
                                        (2.5, 1.0, None)):
            row("nbdcopy of 1 GiB to null", s(mine), peer, s(theirs), f"{theirs / mine:.2f}x as fast",
                f">= {target}x" if target else "", target is None or theirs / mine >= target)
        for what, block, depth, jobs, target in [
                ("4 KiB random reads, depth 1", 4 << 10, 1, 1, 2.0),
                ("4 KiB random reads, depth 32", 4 << 10, 32, 1, 1.6),
                ("4 KiB random reads, 2 connections of depth 64", 4 << 10, 64, 2, 1.8),
                ("256 KiB random reads, depth 8", 256 << 10, 8, 1, 2.0)]:
            mine, *others, bare = paired(
                RUNS, *(lambda socket=socket: random_io(socket, block, depth, jobs)
                        for socket in (ours, nbdkit_file, qemu)),
                lambda: bare_loop(file, block, depth, jobs))
            for peer, theirs, wanted in zip(("nbdkit file", "qemu-nbd", "bare loop"), (*others, bare),
                                            (target, 1.0, None)):
                row(what, f"{mine / 1000:.1f}k a second", peer, f"{theirs / 1000:.1f}k a second",
                    f"{mine / theirs:.2f}x", f">= {wanted}x" if wanted else "",
                    wanted is None or mine / theirs >= wanted)


def make_certificates(directory):
    """One self-signed certificate for everything, by certtool, named as nbdkit wants it."""
    os.mkdir(directory)
    with open(f"{directory}/template", "w") as file:
        file.write("cn = localhost\nca\ncert_signing_key\nsigning_key\ntls_www_server\n"
                   "dns_name = localhost\nexpiration_days = 3\n")
    key, certificate = f"{directory}/server-key.pem", f"{directory}/server-cert.pem"
    for arguments in (["--generate-privkey", "--key-type=ecdsa", "--outfile", key],
                      ["--generate-self-signed", "--load-privkey", key,
                       "--template", f"{directory}/template", "--outfile", certificate]):
        subprocess.run(["certtool", *arguments], check=True, stderr=subprocess.DEVNULL)
    shutil.copy(certificate, f"{directory}/ca-cert.pem")


def bench_tls():
    tree = made("gigabyte", make_gigabyte)
    warm_files(tree)
    with scratch() as images, sockets() as place:
        image = f"{images}/image"
        mke2fs(tree, image, image_size(tree))
        warm_files(images)
        keys, certificates = f"{place}/keys", f"{place}/pki"
        subprocess.run(["psktool", "-u", "bench", "-p", keys], check=True, stdout=subprocess.DEVNULL)
        make_certificates(certificates)
        # NORMAL is what Debian's nbdkit is built with. The client, libnbd, then chooses the cipher, the
        # same for both; with a key that is ChaCha20, and our own default is to have AES all the same.
        normal = ["--tls-priority=NORMAL"]
        for number, (what, files, priority) in enumerate([
                ("certificates, priority NORMAL", f"tls-certificates={certificates}", normal),
                ("pre-shared key, priority NORMAL", f"tls-psk={keys}", normal),
                ("pre-shared key, priority as it comes", f"tls-psk={keys}", [])]):
            parameter = files.replace("tls-psk=", "tls-psk-file=")

            def copy(socket):
                return seconds("nbdcopy", f"nbds+unix://bench@/?socket={socket}&{parameter}", "null:")

            ours_socket, peer_socket = f"{place}/ours{number}", f"{place}/peer{number}"
            tls = ["--tls=require", f"--{files}"]
            with server(mkvirtfs_serve(tree, ours_socket) + tls + priority, ours_socket), \
                    server(nbdkit(peer_socket, *tls, "file", image), peer_socket):
                copy(ours_socket)
                copy(peer_socket)
                ours, theirs = paired(RUNS, lambda: copy(ours_socket), lambda: copy(peer_socket))
                faster(f"nbdcopy of 1 GiB to null over TLS: {what}", ours, "nbdkit file, ext4 image",
                       theirs, 1.0)


def bench_dump():
    tree = linux_source()
    size = image_size(tree)
    with scratch() as place:
        def dump():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{place}/ours")
            os.sync()
            return seconds(MKVIRTFS, "dump", tree, "--fs=ext4", "-o", f"{place}/ours",
                           stderr=subprocess.DEVNULL)

        def peer():
            os.sync()
            return mke2fs(tree, f"{place}/peer", size)

        ours, theirs = paired(RUNS, dump, peer)
        faster("dump of linux-source to a file", ours, "mke2fs -d", theirs, 2.5)


def bench_fat():
    tree = made("many", make_many)
    warm_files(tree)

    def serve(socket):
        return [MKVIRTFS, "serve", tree, "--fs=fat32", "-U", socket]

    def floppy(socket):
        return nbdkit(socket, "floppy", f"dir={tree}")

    peaks = {"ours": 0, "theirs": 0}

    def ready_of(who, command_of):
        elapsed, peak = ready(command_of)
        peaks[who] = max(peaks[who], peak)
        return elapsed

    ours, theirs = paired(RUNS, lambda: ready_of("ours", serve), lambda: ready_of("theirs", floppy))
    within("FAT32, 100,000 files: ready", ours, "nbdkit floppy", theirs, 0.5)
    ratio = peaks["ours"] / peaks["theirs"]
    row("FAT32, 100,000 files: peak memory", f"{peaks['ours'] / 1e6:.0f} MB", "nbdkit floppy",
        f"{peaks['theirs'] / 1e6:.0f} MB", f"{ratio:.2f}x", "<= 0.6x", ratio <= 0.6)

    with sockets() as place, contextlib.ExitStack() as servers:
        ours_socket, peer_socket = f"{place}/ours", f"{place}/peer"
        servers.enter_context(server(serve(ours_socket), ours_socket))
        servers.enter_context(server(floppy(peer_socket), peer_socket))

        def copy(socket):
            return seconds("nbdcopy", f"nbd+unix:///?socket={socket}", "null:")

        first_block(ours_socket)
        first_block(peer_socket)
        ours, theirs = paired(RUNS, lambda: copy(ours_socket), lambda: copy(peer_socket))
        faster("FAT32, 1 GiB in 100,000 files: nbdcopy to null", ours, "nbdkit floppy", theirs, 1.5)

    with scratch() as place:
        def dump():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{place}/ours")
            os.sync()
            return seconds(MKVIRTFS, "dump", tree, "--fs=fat32", "-o", f"{place}/ours",
                           stderr=subprocess.DEVNULL)

        def peer():
            image = f"{place}/peer"
            with open(image, "wb") as file:
                file.truncate(os.path.getsize(f"{place}/ours"))
            os.sync()
            # mcopy looks at a directory's names for each new one: it would go on for many minutes.
            return seconds("sh", "-c", f"/sbin/mkfs.fat -F 32 '{image}' && cd '{tree}' && "
                           f"timeout {patience} mcopy -s -i '{image}' * :: || test $? = 124")

        patience = 60
        ours, = paired(RUNS, dump)
        theirs = peer()
        faster("FAT32, 1 GiB in 100,000 files: dump", ours,
               "mkfs.fat and mcopy" + (", then stopped" if theirs >= patience else ""), theirs, 2.0)


def connected(socket, name=""):
    """A client that has the first block of an export, and the seconds that took."""
    handle = nbd.NBD()
    started = time.monotonic()
    handle.set_export_name(name)
    handle.connect_unix(socket)
    handle.pread(4096, 0)
    return handle, time.monotonic() - started


def resident_bytes(process):
    """From where each page is counted: VmRSS lags behind by some for each thread."""
    with open(f"/proc/{process.pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Rss:"))


def last_of_clones(tree, count):
    """Seconds and bytes of memory that the last of so many clones costs, and then those of one more
    client of the export that is there already."""
    with sockets() as place, contextlib.ExitStack() as clients:
        socket = f"{place}/s"
        with server([*mkvirtfs_serve(tree, socket), "--clone=job-*"], socket) as (process, _):
            first_block(socket)

            def cost(name):
                before = resident_bytes(process)
                handle, elapsed = connected(socket, name)
                clients.callback(handle.shutdown)
                return elapsed, resident_bytes(process) - before

            for number in range(1, count):
                cost(f"job-{number}")
            values = cost(f"job-{count}") + cost("")
            clients.close()
            return values


def bench_overlay():
    """Writes; every server is a new one for every run, so that first writes count the same for all."""
    tree = made("gigabyte", make_gigabyte)
    warm_files(tree)
    file = f"{tree}/0.bin"

    def bare_writes(block):
        """What the page cache takes, without any server: into a new file that is one hole."""
        with scratch() as place:
            os.sync()
            return fio(f"{place}/result", "randwrite", block, "--ioengine=psync",
                       f"--filename={place}/file", "--size=1g", "--fallocate=none")

    def writes(command_of, block, depth, in_place=False, again=False):
        with scratch() as place, sockets() as socket_place:
            base = file
            if in_place:
                base = f"{place}/base"
                shutil.copyfile(file, base)
            os.sync()
            socket = f"{socket_place}/s"
            # What is written is kept on the disk that the trees are on, by all of them.
            with server(["env", f"TMPDIR={place}", *command_of(socket, base)], socket):
                first_block(socket)
                if again:
                    random_io(socket, block, depth, kind="randwrite")
                return random_io(socket, block, depth, kind="randwrite")

    def mine(socket, _):
        return [*mkvirtfs_serve(tree, socket), "--rw"]

    def cow(socket, base):
        return nbdkit(socket, "--filter=cow", "file", base, writable=True)

    def qemu(socket, base):
        return ["qemu-nbd", "-s", "-t", "-e", "8", "-f", "raw", "-k", socket, base]

    def in_place(socket, base):
        return nbdkit(socket, "file", base, writable=True)

    bare = ("pwrite into a new file", None, None)
    for what, block, depth, again, peers in [
            ("4 KiB random writes, depth 32", "4k", 32, False,
             [("nbdkit cow", cow, 4.0), ("qemu-nbd -s", qemu, 2.5),
              ("nbdkit file, in place", in_place, 0.9), bare]),
            ("256 KiB random writes, depth 8", "256k", 8, False,
             [("nbdkit cow", cow, None), ("qemu-nbd -s", qemu, None),
              ("nbdkit file, in place", in_place, 0.9), bare]),
            ("the same, over what was written before", "256k", 8, True,
             [("nbdkit file, in place", in_place, None)])]:
        ours, *others = paired(RUNS, lambda: writes(mine, block, depth, again=again), *(
            lambda peer=peer: writes(peer, block, depth, peer is in_place, again)
            if peer else bare_writes(block) for _, peer, _ in peers))
        for (peer, _, target), theirs in zip(peers, others):
            row(what, f"{ours / 1000:.1f}k a second", peer, f"{theirs / 1000:.1f}k a second",
                f"{ours / theirs:.2f}x", f">= {target}x" if target else "",
                target is None or ours / theirs >= target)

    with sockets() as place, contextlib.ExitStack() as servers:
        above, without = f"{place}/above", f"{place}/without"
        servers.enter_context(server(mine(above, None), above))
        servers.enter_context(server(mkvirtfs_serve(tree, without), without))
        for socket in (above, without):
            first_block(socket)
        ours, theirs = paired(2 * RUNS + 1, lambda: random_io(above, "4k", 32),
                              lambda: random_io(without, "4k", 32))
        row("4 KiB random reads through an empty overlay, depth 32", f"{ours / 1000:.1f}k a second",
            "mkvirtfs without one", f"{theirs / 1000:.1f}k a second", f"{ours / theirs:.2f}x",
            ">= 0.95x", ours / theirs >= 0.95)

    tree = made("many", make_many)
    costs = [last_of_clones(tree, 20) for _ in range(RUNS)]
    elapsed, memory, elapsed_there, memory_there = map(statistics.median, zip(*costs))
    row("20th clone of 100,000 files: first block", f"{elapsed * 1000:.1f} ms", "one more client",
        f"{elapsed_there * 1000:.1f} ms", "", "< 5 ms", elapsed < 0.005)
    row("20th clone of 100,000 files: memory", f"{memory / 1024:.0f} KiB", "one more client",
        f"{memory_there / 1024:.0f} KiB", "", "< 1 MiB", memory < 1 << 20)


def seconds_and_peak(*command):
    """Of a program that ends: its time, and its peak memory in bytes."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.monotonic() - started, usage.ru_maxrss * 1024


def bench_iso():
    tree = linux_source()
    peaks = {"ours": 0, "theirs": 0}

    def serve(socket):
        return [MKVIRTFS, "serve", tree, "--fs=iso", "-U", socket]

    def ready_of_ours():
        elapsed, peak = ready(serve)
        peaks["ours"] = max(peaks["ours"], peak)
        return elapsed

    ours, theirs = paired(3, ready_of_ours,
                          lambda: ready(lambda socket: nbdkit(socket, "iso", tree))[0])
    faster("ISO, linux-source: ready", ours, "nbdkit iso", theirs, 20.0)

    with scratch() as place:
        def dumped(who, *command):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{place}/{who}")
            os.sync()
            elapsed, peak = seconds_and_peak(*command)
            peaks[who] = max(peaks[who], peak)
            return elapsed

        ours, theirs = paired(
            3,
            lambda: dumped("ours", MKVIRTFS, "dump", tree, "--fs=iso", "-o", f"{place}/ours"),
            lambda: dumped("theirs", "xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-o",
                           f"{place}/theirs", tree))
        faster("ISO, linux-source: dump", ours, "xorriso", theirs, 1.5)
    ratio = peaks["ours"] / peaks["theirs"]
    row("ISO, linux-source: peak memory", f"{peaks['ours'] / 1e6:.0f} MB", "xorriso",
        f"{peaks['theirs'] / 1e6:.0f} MB", f"{ratio:.2f}x", "<= 0.5x", ratio <= 0.5)


def bench_erofs():
    """Ready and memory beside our ext4; dumps and sizes beside mkfs.erofs without compression."""
    tree = linux_source()
    peaks = {}

    def ready_as(fs):
        elapsed, peak = ready(lambda socket: [MKVIRTFS, "serve", tree, f"--fs={fs}", "-U", socket])
        peaks[fs] = max(peaks.get(fs, 0), peak)
        return elapsed

    ours, theirs = paired(5, lambda: ready_as("erofs"), lambda: ready_as("ext4"))
    within("EROFS, linux-source: ready", ours, "our ext4", theirs, 1.0)
    relation = peaks["erofs"] / peaks["ext4"]
    row("EROFS, linux-source: peak memory", f"{peaks['erofs'] / 1e6:.0f} MB", "our ext4",
        f"{peaks['ext4'] / 1e6:.0f} MB", f"{relation:.2f}x", "<= 1.0x", relation <= 1.0)

    with scratch() as place:
        def dumped(who, *command):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{place}/{who}")
            os.sync()
            return seconds_and_peak(*command)[0]

        def dump(*options):
            return dumped("ours", MKVIRTFS, "dump", tree, "--fs=erofs", *options, "-o", f"{place}/ours")

        ours, theirs = paired(3, dump,
                              lambda: dumped("theirs", "mkfs.erofs", "--quiet", f"{place}/theirs", tree))
        faster("EROFS, linux-source: dump", ours, "mkfs.erofs", theirs, 2.0)
        dump("--tail-packing")
        sizes = {who: os.stat(f"{place}/{who}").st_size for who in ("ours", "theirs")}
        relation = sizes["ours"] / sizes["theirs"]
        row("EROFS, linux-source: size with --tail-packing", f"{sizes['ours'] / 1e6:.1f} MB", "mkfs.erofs",
            f"{sizes['theirs'] / 1e6:.1f} MB", f"{relation:.4f}x", "<= 1.01x", relation <= 1.01)


def linux_archive(suffix, *compressor):
    """linux-source as a tar, packed once for all runs, and in the page cache."""
    directory = DATA / "archives"
    path = directory / f"linux.tar{suffix}"
    if not path.exists():
        tell(f"making the archive {path.name} ...")
        directory.mkdir(parents=True, exist_ok=True)
        half = directory / f"{path.name}.half"
        if compressor:
            with open(linux_archive("")) as tar, open(half, "wb") as packed:
                subprocess.run(compressor, stdin=tar, stdout=packed, check=True)
        else:
            subprocess.run(["tar", "-cf", half, "--format=posix", "--sort=name", "-C", linux_source(),
                            "."], check=True)
        half.rename(path)
    subprocess.run(["cat", path], check=True, stdout=subprocess.DEVNULL)
    return str(path)


def bench_archive():
    tar = linux_archive("")
    packed = linux_archive(".gz", "gzip", "-6")
    with scratch() as place:
        def ready_of(archive, cache):
            return ready(lambda socket: [*mkvirtfs_serve(archive, socket), f"--cache-dir={cache}"])[0]

        ours, theirs, library = paired(RUNS, lambda: ready_of(tar, "none"),
                                       lambda: seconds("tar", "-tf", tar),
                                       lambda: seconds("bsdtar", "-tf", tar))
        within("linux.tar: ready", ours, "tar -t", theirs, 1.5)
        row("linux.tar: ready", s(ours), "bsdtar -t, by the same library", s(library),
            f"{ours / library:.2f}x its time", "", True)
        listing = ["sh", "-c", 'zcat "$1" | tar -t', "-", packed]
        first, theirs = paired(3, lambda: ready_of(packed, "none"), lambda: seconds(*listing))
        within("linux.tar.gz: ready, first time", first, "zcat and tar -t", theirs, 1.3)
        ready_of(packed, f"{place}/cache")
        again, = paired(RUNS, lambda: ready_of(packed, f"{place}/cache"))
        within("linux.tar.gz: ready, index kept", again, "first time", first, 0.1)

        zst = linux_archive(".zst", "zstd", "-q", "-T0")
        first, = paired(3, lambda: ready_of(zst, "none"))
        ready_of(zst, f"{place}/cache")
        again, = paired(RUNS, lambda: ready_of(zst, f"{place}/cache"))
        within("linux.tar.zst: ready, index kept", again, "first time", first, 0.1)
    bench_archive_reads(tar, packed)


SPAN_BYTES = 2 << 20  # StreamOptions::span_bytes


def places_of_data(archive, tar):
    """(offset in the image, its offset in the tar) of all stretches of data, ascending."""
    with tarfile.open(tar) as members:
        data = {member.name.removeprefix("./"): member.offset_data for member in members}
    listing = subprocess.run([MKVIRTFS, "inspect", archive, "--fs=ext4", "--map", "--cache-dir=none"],
                             check=True, stdout=subprocess.PIPE, text=True).stdout
    places = []
    for line in listing.splitlines():
        words = line.split(None, 4)
        if len(words) == 5 and words[2] == "content" and words[3] == "file":
            path, _, at = words[4].rpartition(" at ")
            places.append((int(words[0]), data[path.lstrip("/")] + int(at)))
    return places


def hundredths(values, count):
    return sorted(values)[len(values) * count // 100]


def bench_archive_reads(tar, packed):
    """Random reads, each beside zlib alone, which inflates the whole span that the read begins in."""
    places = places_of_data(packed, tar)
    starts = [start for start, _ in places]
    chosen = random.Random(1)
    command = [MKVIRTFS, "serve", packed, "--fs=ext4", "--cache-dir=none"]
    bare = subprocess.Popen([BARE_INFLATE, packed, str(SPAN_BYTES * 3 // 4)], text=True, bufsize=1,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    bare.stdout.readline()
    with sockets() as sockets_place:
        socket = f"{sockets_place}/s"
        with server([*command, "-U", socket], socket) as (process, _):
            handle, _ = connected(socket)
            reads, spans, lengths = [], [], []

            def read(offset):
                started = time.monotonic()
                handle.pread(65536, offset)
                reads.append(time.monotonic() - started)

            def inflate_span(offset):
                start, at = places[max(bisect.bisect_right(starts, offset) - 1, 0)]
                print(at + offset - start, file=bare.stdin)
                length, took = bare.stdout.readline().split()
                lengths.append(int(length))
                spans.append(float(took))

            for count in range(2000):
                offset = chosen.randrange(starts[0], starts[-1] - 65536) // 4096 * 4096
                # The one that comes second finds the packed bytes in the processor's caches.
                for measure in (read, inflate_span) if count % 2 else (inflate_span, read):
                    measure(offset)
            for offset in range(0, 512 << 20, 1 << 20):
                handle.pread(1 << 20, offset)
            memory = resident_bytes(process)
            handle.shutdown()
        socket = f"{sockets_place}/four"
        with server([*command, "-U", socket], socket) as (process, _):
            def read_all_over(seed):
                handle, _ = connected(socket)
                chosen = random.Random(seed)
                for _ in range(1000):
                    handle.pread(65536, chosen.randrange((handle.get_size() - 65536) // 4096) * 4096)
                handle.shutdown()

            clients = [threading.Thread(target=read_all_over, args=(seed,)) for seed in range(4)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            memory_of_four = resident_bytes(process)
    bare.stdin.close()
    bare.wait()
    tell(f"spans: {statistics.mean(lengths) / 2**20:.2f} MiB, at most {max(lengths) / 2**20:.2f} MiB")
    for part in (50, 99):
        ours, theirs = hundredths(reads, part), hundredths(spans, part)
        row(f"linux.tar.gz: random 64 KiB, {part} of 100 within", f"{ours * 1000:.1f} ms",
            "zlib, the whole span", f"{theirs * 1000:.1f} ms", f"{ours / theirs:.2f}x", "<= 1x",
            ours <= theirs)
    size = f"{os.path.getsize(packed) / 1e6:.0f} MB"
    row("linux.tar.gz: memory after reads all over", f"{memory / 1e6:.0f} MB", "the archive", size, "",
        "< 100 MB", memory < 100e6)
    row("linux.tar.gz: memory after random reads of 4 clients", f"{memory_of_four / 1e6:.0f} MB",
        "the archive", size, "", "< 100 MB", memory_of_four < 100e6)


def make_booting(path):
    """A kernel and an initrd of usual sizes, which no loader has to read."""
    (path / "boot").mkdir()
    (path / "boot/vmlinuz-6.1.0-1-amd64").write_bytes(random.randbytes(8 << 20))
    (path / "boot/initrd.img-6.1.0-1-amd64").write_bytes(random.randbytes(32 << 20))


def efi_kernel(size):
    """A file that is a kernel for UEFI by its headers, and signed."""
    header, certificates = 512, 4096
    file = bytearray(random.randbytes(size))
    file[:header] = bytes(header)
    file[0:2], file[0x80:0x84] = b"MZ", b"PE\0\0"
    struct.pack_into("<I", file, 0x3C, 0x80)
    struct.pack_into("<HH", file, 0x84, 0x8664, 1)
    struct.pack_into("<HH", file, 0x94, 160, 0x206)
    optional, code = 0x98, size - header - certificates
    struct.pack_into("<H", file, optional, 0x20B)
    struct.pack_into("<II", file, optional + 32, 0x1000, 512)
    struct.pack_into("<II", file, optional + 56, 0x1000 + (code + 4095) // 4096 * 4096, header)
    struct.pack_into("<H", file, optional + 68, 10)
    struct.pack_into("<I", file, optional + 108, 6)
    struct.pack_into("<II", file, optional + 144, header + code, certificates)
    table = optional + 160
    file[table : table + 5] = b".text"
    struct.pack_into("<IIII", file, table + 8, code, 0x1000, code, header)
    file[0x202:0x206] = b"HdrS"
    struct.pack_into("<HH", file, 0x206, 0x20F, 0)
    return file


def make_efi_booting(path):
    """The same for UEFI, whose loaders look at the headers of the kernel."""
    (path / "boot").mkdir()
    (path / "boot/vmlinuz-6.1.0-1-amd64").write_bytes(efi_kernel(8 << 20))
    (path / "boot/initrd.img-6.1.0-1-amd64").write_bytes(random.randbytes(60 << 20))


def drop_from_page_cache(paths):
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def pieces_for_uefi():
    told = subprocess.run([MKVIRTFS, "inspect", "--boot-pieces"], check=True, stdout=subprocess.PIPE).stdout
    return [line.split()[-1] for line in told.decode().splitlines() if ".efi" in line]


def bench_boot():
    """Each loader beside the same image without it: what the pieces, the files and the patches cost."""
    tree, efi_tree = made("booting", make_booting), made("booting-uefi", make_efi_booting)
    kinds = [("syslinux", "--fs=fat32"), ("syslinux", "--fs=fat32", "--table=mbr"),
             ("syslinux", "--fs=fat32", "--table=gpt"), ("extlinux", "--fs=ext4"),
             ("extlinux", "--fs=ext4", "--table=mbr"), ("isolinux", "--fs=iso"),
             ("grub", "--fs=ext4", "--table=mbr"), ("grub", "--fs=ext4", "--table=gpt")]
    for_uefi = ["systemd-boot", "uki", "uefi-signed"]
    kinds += [(loader, *image) for loader in for_uefi
              for image in [("--fs=fat32",), ("--fs=ext4", "--esp=128M"), ("--fs=iso", "--append=root=/dev/sr0")]]
    with scratch() as place:
        for loader, *image in kinds:
            is_uefi = loader in for_uefi
            append = [word for word in image if word.startswith("--append")]
            plain = [word for word in image if word not in append]

            def serve(socket, *boot, cache=f"{place}/kept"):
                return ["env", f"XDG_CACHE_HOME={cache}", MKVIRTFS, "serve", efi_tree if is_uefi else tree, *plain,
                        *boot, "-U", socket]

            def with_loader(socket):
                return serve(socket, f"--boot={loader}", *append)

            def first():
                # Only GRUB's core.img is made; what is read of packages may be on the disk.
                if is_uefi:
                    drop_from_page_cache(pieces)
                cache = tempfile.mkdtemp(dir=place)
                return ready(lambda socket: serve(socket, f"--boot={loader}", *append, cache=cache))[0]

            pieces = pieces_for_uefi() if is_uefi else []
            what = f"ready, {loader} {' '.join(word.split('=')[1] for word in plain)}"
            ready(with_loader)
            with_it, without, unmade = paired(4 * RUNS + 1, lambda: ready(with_loader)[0], lambda: ready(serve)[0],
                                              first)
            for name, ours, most in [(what, with_it, 0.015), (f"{what}, first use", unmade, 0.300)]:
                if most > 0.015 and loader != "grub" and not is_uefi:
                    continue
                row(name, f"{ours * 1000:.1f} ms", "without a loader", f"{without * 1000:.1f} ms",
                    f"{(ours - without) * 1000:.1f} ms more", f"<= {most * 1000:.0f} ms more",
                    ours - without <= most)


BENCHES = {"ready": bench_ready, "flat": bench_flat, "million": bench_million, "large": bench_large,
           "reads": bench_reads, "core": bench_core, "tls": bench_tls, "dump": bench_dump,
           "fat": bench_fat, "iso": bench_iso, "erofs": bench_erofs, "overlay": bench_overlay,
           "archive": bench_archive, "boot": bench_boot}


def main():
    chosen = sys.argv[2:] or list(BENCHES)
    for name in chosen:
        if name not in BENCHES:
            sys.exit(f"there is no benchmark '{name}': {', '.join(BENCHES)}")
    DATA.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        BENCHES[name]()
    head = ("what", "mkvirtfs", "beside it", "relation", "target", "met")
    for line in [head, ["---"] * len(head), *rows]:
        print("| " + " | ".join(line) + " |")


main()
