// SPDX-License-Identifier: BSD-3-Clause
// Tables that sfdisk and sgdisk write are read as sfdisk lists them; broken ones are refused.
#include "fsgen/disk/partition_table.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>

#include "fsgen/stream/file_source.h"
#include "support/byte_order.h"
#include "support/crc32.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::disk {
namespace {

constexpr std::uint64_t kDiskBytes = 64 << 20;

class Disk {
 public:
  Disk() : file_((place_ / "disk.img").string()) {
    write_file(file_, "");
    std::filesystem::resize_file(file_, kDiskBytes);
  }

  void run(const std::string& shell) const {
    const Ran ran = run_tool({"sh", "-c", shell, "sh", file_});
    INFO(ran.output);
    REQUIRE(ran.status == 0);
  }
  void sfdisk(const std::string& script, const std::string& options = "") const {
    run(fmt::format("printf '{}' | sfdisk -q {} \"$1\"", script, options));
  }
  void poke(std::uint64_t at, unsigned value) const {
    std::fstream file(file_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(value));
  }
  std::shared_ptr<ByteSource> source() const {
    auto source = open_file_source(file_, {OnChange::error, ChangeCheck::ctime}, null_log());
    REQUIRE(source);
    return *source;
  }
  /// "1 1048576+4096 name" a line; or the error.
  std::string list() const {
    const auto table = read_partition_table(*source());
    if (!table) return table.error().what.substr(file_.size());
    if (!*table) return "none";
    std::string text;
    for (const Partition& each : (*table)->partitions) {
      text += fmt::format("{} {}+{}{}{}{}\n", each.number, each.range.offset, each.range.length,
                          each.name.empty() ? "" : " ", each.name,
                          each.problem.empty() ? "" : " (" + each.problem + ")");
    }
    return text + (*table)->problem.substr((*table)->problem.empty() ? 0 : file_.size());
  }
  /// The same as sfdisk has it, without extended partitions.
  std::string their_list() const {
    const Ran ran = run_tool({"sfdisk", "--dump", file_});
    std::string text;
    const std::regex line(R"(\S*img(\d+) : start= *(\d+), size= *(\d+), type=([^,\n]*)([^\n]*))");
    const std::regex name(R"(name="([^"]*)\")");
    for (std::sregex_iterator at(ran.output.begin(), ran.output.end(), line), end; at != end;
         ++at) {
      const std::string type = (*at)[4];
      if (type == "5" || type == "f") continue;
      const std::string rest = (*at)[5];
      std::smatch named;
      text += fmt::format("{} {}+{}{}\n", (*at)[1].str(), std::stoull((*at)[2]) * 512,
                          std::stoull((*at)[3]) * 512,
                          std::regex_search(rest, named, name) ? " " + named[1].str() : "");
    }
    REQUIRE(!text.empty());
    return text;
  }
  std::string find(std::string_view word) const {
    const auto disk = source();
    const auto table = read_partition_table(*disk);
    REQUIRE((table && *table));
    const auto found = find_partition(**table, *disk, word);
    return found ? std::to_string(found->number) : found.error().what;
  }
  const std::string& file() const { return file_; }

 private:
  TempDir place_{fast_place()};
  std::string file_;
};

std::string without_extended(std::string list) {
  return std::regex_replace(list, std::regex(R"([^\n]*extended[^\n]*\n)"), "");
}

}  // namespace

TEST_CASE("a GPT is read as sfdisk lists it") {
  const Disk disk;
  disk.sfdisk(
      "label: gpt\nsize=1M, name=\"EFI system\"\nsize=8M, name=root\nstart=90000, size=100\n");
  CHECK(disk.list() == disk.their_list());
  // Numbers need not be in order, nor all there.
  disk.run("sgdisk -d 2 -n 7:30000:30999 -c 7:last \"$1\"");
  CHECK(disk.list() == disk.their_list());
  disk.run("sgdisk -c 7:späť \"$1\"");
  CHECK(disk.find("1") == "1");
  CHECK(disk.find("EFI system") == "1");
  CHECK(disk.find("späť") == "7");
  CHECK_THAT(disk.find("2"),
             Catch::EndsWith("has no partition 2; it has 1 (EFI system), 3, 7 (späť)"));
}

TEST_CASE("an MBR with logical partitions is read as sfdisk lists it") {
  const Disk disk;
  disk.sfdisk(
      "label: dos\nsize=1M\nsize=40M, type=5\nsize=1M, type=83\nstart=6144, "
      "size=2M\nsize=3M\nsize=100\n");
  CHECK(without_extended(disk.list()) == disk.their_list());
  CHECK_THAT(disk.find("2"), Catch::Contains("it is an extended partition"));
  CHECK(disk.find("6") == "6");
}

TEST_CASE("the label of a file system names its partition, after names and numbers") {
  const Disk disk;
  disk.sfdisk(
      "label: gpt\nstart=2048, size=8M, name=data\nsize=8M, name=3\nsize=8M, name=2\nsize=8M, "
      "name=data\n");
  disk.run("mke2fs -q -L system -E offset=1048576 \"$1\" 8M");
  disk.run("mkfs.fat -n STICK --offset 18432 \"$1\" 8192");
  CHECK(disk.find("system") == "1");
  CHECK(disk.find("STICK") == "2");
  CHECK(disk.find("3") == "3");
  CHECK_THAT(disk.find("data"),
             Catch::Contains("several partitions data: name one by its number (1 and 4)"));
}

TEST_CASE("a GPT whose first copy is broken is read from the second, and said to be broken") {
  const Disk disk;
  disk.sfdisk("label: gpt\nsize=1M, name=a\nsize=2M, name=b\n");
  const std::string good = disk.list();
  const auto [at, what] = GENERATE(table<std::uint64_t, std::string>({
      {512, ": the GPT at the beginning is missing; its copy at the end is read"},
      {512 + 24,
       ": byte 512: the checksum of the GPT's header is wrong; its copy at the end is read"},
      {1024 + 40,
       ": byte 1024: the checksum of the GPT's entries is wrong; its copy at the end is read"},
  }));
  disk.poke(at, 0x5a);
  CHECK(disk.list() == good + what);
  disk.poke(kDiskBytes - 512 + 24, 0x5a);
  CHECK_THAT(disk.list(), Catch::Contains(": byte "));
}

TEST_CASE("sectors of 4096 bytes are known by where the header is") {
  const Disk disk;
  // sfdisk takes a file's sectors for 512 bytes: a table of its own making, moved.
  disk.sfdisk("label: gpt\nstart=2048, size=4096, name=a\n");
  std::string image = read_file(disk.file());
  std::string header = image.substr(512, 92);
  const std::string entries = image.substr(1024, 16384);
  image.replace(512, 512, std::string(512, '\0'));
  auto bytes = std::as_writable_bytes(std::span(header));
  store_le<std::uint64_t>(bytes, 40, 6);
  store_le<std::uint64_t>(bytes, 48, kDiskBytes / 4096 - 6);
  store_le<std::uint32_t>(bytes, 16, 0);
  store_le<std::uint32_t>(bytes, 16, crc32(bytes));
  image.replace(4096, 92, header);
  image.replace(8192, 16384, entries);
  write_file(disk.file(), image);
  CHECK(disk.list() == "1 8388608+16777216 a\n");
}

TEST_CASE("partitions that cannot be believed have a problem, and others do not") {
  const Disk disk;
  disk.sfdisk("label: dos\nstart=2048, size=2048\nstart=4096, size=2048\nstart=8192, size=2048\n");
  disk.poke(446 + 12, 0x01);
  disk.poke(446 + 13, 0x09);            // 2305 sectors: into the next one
  disk.poke(446 + 2 * 16 + 12 + 3, 1);  // far behind the end
  CHECK(disk.list() ==
        "1 1048576+1180160 (partition 2 has the same bytes)\n"
        "2 2097152+1048576 (partition 1 has the same bytes)\n"
        "3 4194304+8590983168 (it ends at byte 8595177472, and the disk at 67108864)\n");
  CHECK_THAT(disk.find("1"), Catch::Contains("partition 1 of ") &&
                                 Catch::EndsWith(": partition 2 has the same bytes"));
}

TEST_CASE("a chain of logical partitions ends, whatever it says") {
  const Disk disk;
  disk.sfdisk("label: dos\nstart=2048, size=40M, type=5\nsize=1M\nsize=1M\n");
  // The second link of the chain leads to itself.
  const std::string image = read_file(disk.file());
  const auto first = std::as_bytes(std::span(image)).subspan(std::size_t{2048} * 512, 512);
  const auto next = load_le<std::uint32_t>(first, 446 + 16 + 8);
  const std::uint64_t second = (2048 + std::uint64_t{next}) * 512;
  disk.poke(second + 446 + 16 + 4, 5);
  for (std::size_t i = 0; i < 4; ++i) {
    disk.poke(second + 446 + 16 + 8 + i, next >> 8 * i & 0xff);
    disk.poke(second + 446 + 16 + 12 + i, i == 0 ? 1 : 0);
  }
  CHECK(disk.list() ==
        fmt::format(": byte {}: the chain of logical partitions does not lead forward", second));
}

TEST_CASE("what has no table has none") {
  const Disk disk;
  CHECK(disk.list() == "none");
  disk.run("mkfs.fat \"$1\"");
  CHECK(disk.list() == "none");
  disk.run("mke2fs -q -F \"$1\"");
  CHECK(disk.list() == "none");
  disk.sfdisk("label: gpt\n");
  CHECK(disk.list().empty());
  CHECK_THAT(disk.find("1"), Catch::EndsWith("has no partition 1; it has none"));
}

}  // namespace mkvirtfs::disk
