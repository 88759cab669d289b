// SPDX-License-Identifier: BSD-3-Clause
#include "vm/initrd.h"

#include <array>
#include <catch2/catch.hpp>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>

#include "tests/support/temp_dir.h"
#include "vm/cpio.h"
#include "vm/kernel_modules.h"

namespace mkvirtfs::vm {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

/// What GNU cpio says of an archive, with a command line behind "cpio".
std::string cpio(const std::vector<std::byte>& archive, const std::string& arguments) {
  const TempDir directory;
  std::ofstream(directory / "archive", std::ios::binary)
      .write(reinterpret_cast<const char*>(archive.data()),
             static_cast<std::streamsize>(archive.size()));
  const std::string command =
      "cpio --quiet " + arguments + " <'" + (directory / "archive").string() + "' 2>&1";
  FILE* const pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string said;
  std::array<char, 4096> piece{};
  for (std::size_t count = 0; (count = std::fread(piece.data(), 1, piece.size(), pipe)) > 0;) {
    said.append(piece.data(), count);
  }
  CHECK(::pclose(pipe) == 0);
  return said;
}

constexpr std::string_view kDependencies =
    "kernel/fs/ext4/ext4.ko: kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n"
    "kernel/fs/mbcache.ko:\n"
    "kernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko\n"
    "kernel/lib/crc16.ko:\n"
    "kernel/drivers/block/virtio-blk.ko.xz: kernel/lib/crc16.ko\n";

}  // namespace

TEST_CASE("an archive is one for cpio") {
  CpioWriter writer;
  writer.add_directory("dev", 0755);
  writer.add_character_device("dev/console", 0600, 5, 1);
  writer.add_file("init", 0755, bytes_of("abcde"));
  writer.add_file("empty", 0644, {});
  const std::vector<std::byte> archive = std::move(writer).finish();
  const std::string list = cpio(archive, "-itvn");
  CHECK_THAT(list, Catch::Contains("drwxr-xr-x") && Catch::Contains(" dev\n"));
  CHECK_THAT(list, Catch::Contains("crw-------") && Catch::Contains("5,   1"));
  CHECK_THAT(list,
             Catch::Contains("-rwxr-xr-x") && Catch::Contains(" 5 ") && Catch::Contains(" init\n"));
  CHECK(cpio(archive, "-i --to-stdout init") == "abcde");
}

TEST_CASE("modules are loaded behind what they need, each once") {
  const std::array<std::string_view, 4> wanted{"virtio_blk", "ext4", "overlay", "virtio_pci"};
  const ModuleChoice choice =
      choose_modules(wanted, kDependencies, "kernel/drivers/virtio/virtio-pci.ko\n");
  CHECK(choice.files == std::vector<std::string>{"kernel/lib/crc16.ko",
                                                 "kernel/drivers/block/virtio-blk.ko.xz",
                                                 "kernel/fs/jbd2/jbd2.ko", "kernel/fs/mbcache.ko",
                                                 "kernel/fs/ext4/ext4.ko"});
  CHECK(choice.missing == std::vector<std::string>{"overlay"});
}

TEST_CASE("an initrd has the init, its settings and the modules") {
  std::map<std::string, std::string> files{{"modules.dep", std::string(kDependencies)}};
  for (const char* file :
       {"kernel/fs/ext4/ext4.ko", "kernel/fs/mbcache.ko", "kernel/fs/jbd2/jbd2.ko",
        "kernel/lib/crc16.ko", "kernel/drivers/block/virtio-blk.ko.xz"}) {
    files[file] = std::string("bytes of ") + file;
  }
  const KernelModules modules{
      [&](const std::string& path) -> Result<std::optional<std::vector<std::byte>>> {
        const auto found = files.find(path);
        if (found == files.end()) return std::nullopt;
        const auto bytes = bytes_of(found->second);
        return std::vector<std::byte>(bytes.begin(), bytes.end());
      }};
  GuestSetup setup;
  setup.root_type = "ext4";
  setup.arguments = {"echo", "a b"};
  setup.environment = {"A=1"};
  const Result<Initrd> initrd = make_initrd(bytes_of("the init"), setup, modules);
  REQUIRE(initrd);
  CHECK(cpio(initrd->archive, "-i --to-stdout init") == "the init");
  CHECK(cpio(initrd->archive, "-i --to-stdout modules/ext4.ko") ==
        "bytes of kernel/fs/ext4/ext4.ko");
  const std::string settings = cpio(initrd->archive, "-i --to-stdout mkvirtfs.settings");
  using namespace std::string_literals;
  const std::string expected =
      "type=ext4\0port=mkvirtfs.status\0network=\0argument=echo\0argument=a b\0variable=A=1\0"s;
  CHECK_THAT(settings, Catch::Contains(expected));
  CHECK(settings.starts_with("module=/modules/crc16.ko"));
  CHECK_THAT(initrd->missing_modules, Catch::VectorContains(std::string("virtio_net")));

  setup.arguments = {std::string("a\0b", 3)};
  CHECK(make_initrd(bytes_of("the init"), setup, modules).error().code == Errc::usage);
  files.erase("kernel/lib/crc16.ko");
  setup.arguments.clear();
  CHECK(make_initrd(bytes_of("the init"), setup, modules).error().code == Errc::unreadable);
}

}  // namespace mkvirtfs::vm
