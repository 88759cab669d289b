// SPDX-License-Identifier: BSD-3-Clause
#include "cli/help_pages.h"

#include <array>

namespace mkvirtfs::cli {
namespace {

using Names = std::string_view;

constexpr auto kServe = std::to_array<Names>(
    {"--at", "--exclude", "--owner", "--unix",  "--port",      "--listen", "--tls",
     "--rw", "--overlay", "--clone", "--ctl",   "--run",       "--fork",   "--allow",
     "--fs", "--size",    "--free",  "--table", "--partition", "--boot"});
constexpr auto kDump = std::to_array<Names>(
    {"--at",     "--exclude", "--owner",     "--output", "--force", "--format", "--sha256",
     "--json",   "--fs",      "--size",      "--free",   "--label", "--uuid",   "--dedupe",
     "--preset", "--table",   "--partition", "--boot",   "--esp",   "--kernel", "--append"});
constexpr auto kBoot =
    std::to_array<Names>({"--at", "--file", "--exclude", "--fs", "--free", "--partition", "--boot",
                          "--kernel", "--initrd", "--append", "--memory", "--cpus", "--accel",
                          "--firmware", "--keep", "--print", "--share", "--ssh"});
constexpr auto kInspect =
    std::to_array<Names>({"--at", "--file", "--exclude", "--owner", "--map", "--differences",
                          "--boot-pieces", "--json", "--fs", "--size", "--free", "--label",
                          "--symlinks", "--preset", "--table", "--partition", "--boot"});
constexpr auto kInside = std::to_array<Names>(
    {"-l", "--recursive", "--json", "--exclude", "--include", "--owner", "--platform",
     "--source-format", "--skip-unreadable", "--passphrase-file"});

constexpr auto kPages = std::to_array<HelpPage>({
    {"serve",
     "  mkvirtfs serve ./rootfs --fs=ext4 --run 'nbdinfo \"$uri\"'\n"
     "  mkvirtfs serve app.tar.gz --fs=ext4 --clone='job-*' --listen 127.0.0.1:10809",
     kServe},
    {"dump",
     "  mkvirtfs dump ./rootfs --fs=ext4 --free=1G -o disk.img\n"
     "  mkvirtfs dump ./base ./more --at=/etc ./etc --fs=iso -o disk.iso --sha256",
     kDump},
    {"boot",
     "  mkvirtfs boot ./rootfs\n"
     "  mkvirtfs boot oci:./app:latest -- sh -c 'uname -a'",
     kBoot},
    {"inspect",
     "  mkvirtfs inspect ./rootfs --fs=ext4\n"
     "  mkvirtfs inspect ./rootfs --fs=fat --differences",
     kInspect},
    {"ls", "  mkvirtfs ls -l rootfs.tar.gz:/etc\n  mkvirtfs ls -R disk.img", kInside},
    {"cat",
     "  mkvirtfs cat rootfs.tar.gz:/etc/hostname\n  mkvirtfs cat disk.img:/boot/vmlinuz >vmlinuz",
     kInside},
    {"stat", "  mkvirtfs stat rootfs.tar.gz:/etc/hostname\n  mkvirtfs stat --json disk.img:/bin/sh",
     kInside},
    {"extract", "  mkvirtfs extract disk.img ./out\n  mkvirtfs extract oci:./app:latest:/etc ./etc",
     kInside},
    {"list",
     "  mkvirtfs list nbd://127.0.0.1/tools\n  mkvirtfs list -R --json nbd+unix:///?socket=./nbd"},
    {"overlay", "  mkvirtfs overlay info disk.overlay\n  mkvirtfs overlay check disk.overlay"},
    {"ctl",
     "  mkvirtfs ctl ./ctl diff job-7 --files\n  mkvirtfs ctl ./ctl save job-7 -o job-7.img"},
});

}  // namespace

std::span<const HelpPage> help_pages() { return kPages; }

}  // namespace mkvirtfs::cli
