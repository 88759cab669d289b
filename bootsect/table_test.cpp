// SPDX-License-Identifier: BSD-3-Clause
// The tables on sparse files, judged by the tools that people have for them. Each judge has to say
// which partitions it sees: that it does not complain proves nothing.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <string>
#include <vector>

#include "bootsect/gpt.h"
#include "bootsect/mbr.h"
#include "bootsect/partition_type.h"
#include "bootsect/testing/disk_file.h"
#include "support/byte_order.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;
using testing::bytes_at;
using testing::write_patches;

namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

void check_says(const Ran& ran, std::string_view text) {
  INFO(ran.output);
  CHECK(ran.output.find(text) != std::string::npos);
}

Uuid uuid_of(std::string_view text) {
  const auto uuid = parse_uuid(text);
  REQUIRE(uuid);
  return *uuid;
}

Uuid guid_of(std::string_view type) {
  const auto found = find_partition_type(type, "x86-64");
  REQUIRE(found);
  return *found->guid;
}

MbrTable table_of_seven() {
  MbrTable table;
  table.disk_id = 0x12345678;
  table.primaries = {
      {0x0C, true, 2048, 2048}, {0x83, false, 4096, 20480}, {0x83, false, 24576, 20480}};
  table.logicals = {{{0x83, false, 47104, 2048}, 45056},
                    {{0x82, false, 51200, 20'000'000}, 49152},
                    {{0x83, false, 30'000'128, 2048}, 29'998'080}};
  return table;
}

GptTable table_of_three(std::uint32_t sector_bytes) {
  const std::uint64_t mebi = kAlignmentBytes / sector_bytes;
  GptTable table;
  table.sector_bytes = sector_bytes;
  table.sector_count = 4 * kGiB / sector_bytes;
  table.disk_id = uuid_of("00112233-4455-8677-8899-aabbccddeeff");
  table.partitions = {
      {guid_of("esp"), uuid_of("11111111-2222-8333-8444-555555555555"), mebi, 64 * mebi,
       gpt_attributes::kLegacyBootable, "boot"},
      {guid_of("root"), uuid_of("66666666-7777-8888-9999-aaaaaaaaaaaa"), 65 * mebi, 1024 * mebi,
       gpt_attributes::kGrowFileSystem, "Wurzel \xC3\xA4\xF0\x9F\x98\x80"},
      {guid_of("home"), uuid_of("bbbbbbbb-cccc-8ddd-8eee-ffffffffffff"), 2048 * mebi,
       table.sector_count - gpt_sectors_at_end(sector_bytes) - 2048 * mebi, 0, ""}};
  return table;
}

}  // namespace

TEST_CASE("an MBR with logical partitions has the bytes that sfdisk writes") {
  const TempDir directory;
  const std::string ours = (directory / "ours").string();
  const std::string theirs = (directory / "theirs").string();
  const MbrTable table = table_of_seven();
  const std::vector<Patch> patches = mbr_table(table);
  write_patches(ours, 20 * kGiB, patches);
  write_patches(theirs, 20 * kGiB, {});
  const std::string script = (directory / "script").string();
  const MbrPartition& last = table.logicals.back().partition;
  write_file(script,
             fmt::format("label: dos\nlabel-id: 0x12345678\n"
                         "start=2048,size=2048,type=c,bootable\n"
                         "start=4096,size=20480,type=83\nstart=24576,size=20480,type=83\n"
                         "start=45056,size={},type=f\n"
                         "start=47104,size=2048,type=83\nstart=51200,size=20000000,type=82\n"
                         "start=30000128,size=2048,type=83\n",
                         last.first_sector + last.sector_count - 45056));
  const Ran made = run_tool({"sh", "-c", "sfdisk -q '" + theirs + "' <'" + script + "'"});
  INFO(made.output);
  REQUIRE(made.status == 0);
  for (const Patch& patch : patches) {
    CAPTURE(patch.what);
    CHECK((bytes_at(ours, patch.offset, patch.bytes.size()) ==
           bytes_at(theirs, patch.offset, patch.bytes.size())));
  }

  const Ran verified = run_tool({"sfdisk", "--verify", ours});
  CHECK(verified.status == 0);
  const Ran dumped = run_tool({"sfdisk", "--dump", ours});
  check_says(dumped, "label-id: 0x12345678");
  check_says(dumped, "ours1 : start=        2048, size=        2048, type=c, bootable");
  check_says(dumped, "ours5 : start=       47104, size=        2048, type=83");
  check_says(dumped, "ours6 : start=       51200, size=    20000000, type=82");
  check_says(dumped, "ours7 : start=    30000128, size=        2048, type=83");
  const Ran parted = run_tool({"parted", "-s", "-m", ours, "unit", "s", "print"});
  CHECK(parted.status == 0);
  check_says(parted, "\n1:2048s:4095s:2048s:::boot, lba;");
  check_says(parted, "\n6:51200s:20051199s:20000000s:::");
  check_says(parted, "\n7:30000128s:30002175s:2048s:::");
  const Ran blkid = run_tool({"blkid", "-p", "-o", "export", ours});
  check_says(blkid, "PTUUID=12345678");
  check_says(blkid, "PTTYPE=dos");
}

TEST_CASE("an MBR of 4096-byte sectors counts those") {
  const TempDir directory;
  const std::string path = (directory / "disk").string();
  MbrTable table;
  table.sector_bytes = 4096;
  table.disk_id = 7;
  table.primaries = {{0x83, false, 256, 256}, {0x83, false, 512, 256}, {0x83, false, 768, 256}};
  table.logicals = {{{0x83, false, 1280, 256}, 1024}, {{0x82, false, 1792, 512}, 1536}};
  write_patches(path, 64u << 20, mbr_table(table));
  const Ran listed = run_tool({"fdisk", "-b", "4096", "-l", "-o", "Start,Sectors,Id", path});
  check_says(listed, "\n  256     256 83");
  check_says(listed, "\n 1280     256 83");
  check_says(listed, "\n 1792     512 82");
}

TEST_CASE("a GPT is what sfdisk, sgdisk, parted and blkid say") {
  const TempDir directory;
  const std::string path = (directory / "disk").string();
  const GptTable table = table_of_three(512);
  const auto patches = gpt_table(table);
  REQUIRE(patches);
  write_patches(path, 4 * kGiB, *patches);

  const Ran sgdisk = run_tool({"sgdisk", "-v", path});
  CHECK(sgdisk.status == 0);
  check_says(sgdisk, "No problems found");
  const Ran printed = run_tool({"sgdisk", "-i", "2", path});
  check_says(printed, "Partition GUID code: 4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709");
  check_says(printed, "Partition unique GUID: 66666666-7777-8888-9999-AAAAAAAAAAAA");
  check_says(printed, "First sector: 133120 ");
  check_says(printed, "Attribute flags: 0800000000000000");

  CHECK(run_tool({"sfdisk", "--verify", path}).status == 0);
  const Ran dumped = run_tool({"sfdisk", "--json", path});
  check_says(dumped, "\"id\": \"00112233-4455-8677-8899-AABBCCDDEEFF\"");
  check_says(dumped, "\"firstlba\": 34,");
  check_says(dumped, fmt::format("\"lastlba\": {}", table.sector_count - 34));
  check_says(dumped, "\"start\": 2048,");
  check_says(dumped, "\"size\": 131072,");
  check_says(dumped, "\"attrs\": \"LegacyBIOSBootable\"");
  check_says(dumped, "\"type\": \"933AC7E1-2EB4-4F13-B844-0E14E2AEF915\"");

  const Ran parted = run_tool({"parted", "-s", "-m", path, "unit", "s", "print"});
  CHECK(parted.status == 0);
  check_says(parted, "\n1:2048s:133119s:131072s::boot:boot, legacy_boot, esp;");
  check_says(parted, "\n2:133120s:2230271s:2097152s:");
  // In the C locale they print no such name; sgdisk has it wrong beyond U+FFFF.
  check_says(run_tool({"env", "LC_ALL=C.UTF-8", "sfdisk", "--json", path}),
             "\"name\": \"Wurzel \xC3\xA4\xF0\x9F\x98\x80\"");
  check_says(parted, fmt::format("\n3:4194304s:{}s:", table.sector_count - 34));
  const Ran blkid = run_tool({"blkid", "-p", "-o", "export", path});
  check_says(blkid, "PTUUID=00112233-4455-8677-8899-aabbccddeeff");
  check_says(blkid, "PTTYPE=gpt");
}

TEST_CASE("the backup GPT alone brings a disk back") {
  const TempDir directory;
  const std::string path = (directory / "disk").string();
  auto patches = gpt_table(table_of_three(512));
  REQUIRE(patches);
  std::erase_if(*patches, [](const Patch& patch) {
    return patch.what == "GPT header" || patch.what == "GPT entries";
  });
  write_patches(path, 4 * kGiB, *patches);
  const Ran dumped = run_tool({"sfdisk", "--dump", path});
  check_says(dumped, "start=     4194304");
}

TEST_CASE("a GPT of 4096-byte sectors is what fdisk says") {
  const TempDir directory;
  const std::string path = (directory / "disk").string();
  const GptTable table = table_of_three(4096);
  CHECK(gpt_sectors_at_start(4096) == 6);
  CHECK(gpt_sectors_at_end(4096) == 5);
  const auto patches = gpt_table(table);
  REQUIRE(patches);
  write_patches(path, 4 * kGiB, *patches);
  const Ran listed = run_tool({"fdisk", "-b", "4096", "-l", "-o", "Start,Sectors,Name", path});
  INFO(listed.output);
  CHECK(listed.status == 0);
  check_says(listed, "00112233-4455-8677-8899-AABBCCDDEEFF");
  check_says(listed, "256   16384 boot");
  check_says(listed, "16640  262144 Wurzel");
  CHECK(listed.output.find("corrupt") == std::string::npos);
}

TEST_CASE("a hybrid MBR has the bytes that sgdisk writes, and all tools go by the GPT") {
  const TempDir directory;
  const std::string ours = (directory / "ours").string();
  const std::string theirs = (directory / "theirs").string();
  GptTable table = table_of_three(512);
  const auto plain = gpt_table(table);
  REQUIRE(plain);
  write_patches(theirs, 4 * kGiB, *plain);
  table.mbr_id = 0x12345678;
  const auto shown = [&](std::size_t partition, std::uint8_t type, bool active) {
    const GptPartition& of_gpt = table.partitions[partition];
    return MbrPartition{type, active, static_cast<std::uint32_t>(of_gpt.first_sector),
                        static_cast<std::uint32_t>(of_gpt.sector_count)};
  };
  const std::string numbers = GENERATE("1:2:3", "2:3", "3");
  for (std::size_t at = 0; at < numbers.size(); at += 2) {
    const auto partition = static_cast<std::size_t>(numbers[at] - '1');
    table.in_mbr.push_back(
        shown(partition, partition == 0 ? std::uint8_t{0xEF} : std::uint8_t{0x83}, false));
  }
  const auto patches = gpt_table(table);
  REQUIRE(patches);
  write_patches(ours, 4 * kGiB, *patches);
  const Ran made = run_tool({"sgdisk", "--hybrid", numbers, theirs});
  INFO(made.output);
  REQUIRE(made.status == 0);
  // The disk's id is 0 there.
  CHECK((bytes_at(ours, 444, 68) == bytes_at(theirs, 444, 68)));
  CHECK((bytes_at(ours, 512, 33 * 512) == bytes_at(theirs, 512, 33 * 512)));

  table.in_mbr.back().active = true;
  const auto active = gpt_table(table);
  REQUIRE(active);
  write_patches(ours, 4 * kGiB, *active);
  check_says(run_tool({"sgdisk", "-v", ours}), "No problems found");
  check_says(run_tool({"sgdisk", "-p", ours}), "4194304         8388574 ");
  check_says(run_tool({"sfdisk", "--verify", ours}), "Using 3 out of 128 partitions");
  check_says(run_tool({"fdisk", "-l", "-o", "Start,Sectors,Type", ours}),
             "4194304 4194271 Linux home");
  const Ran parted = run_tool({"parted", "-s", "-m", ours, "unit", "s", "print"});
  CHECK(parted.status == 0);
  check_says(parted, ":gpt:");
  check_says(parted, "\n2:133120s:2230271s:2097152s:");
  const Ran blkid = run_tool({"blkid", "-p", "-o", "export", ours});
  check_says(blkid, "PTUUID=00112233-4455-8677-8899-aabbccddeeff");
  check_says(blkid, "PTTYPE=gpt");
  // What knows no GPT sees the partitions in the MBR.
  const Ran as_mbr = run_tool({"sh", "-c", "printf p | fdisk -t dos '" + ours + "'"});
  check_says(as_mbr, "Disk identifier: 0x12345678");
  check_says(as_mbr, " 4194304 8388574 4194271 ");
  check_says(as_mbr, "ours" + std::to_string(1 + table.in_mbr.size()) + " *");
}

TEST_CASE("names of GPT partitions have 36 units of UTF-16") {
  const auto units = gpt_name("a\xF0\x9F\x98\x80");
  REQUIRE(units);
  CHECK(*units == u"a\U0001F600");
  CHECK(units->size() == 3);
  CHECK(gpt_name(std::string(36, 'x')));
  const auto long_one = gpt_name(std::string(35, 'x') + "\xF0\x9F\x98\x80");
  REQUIRE(!long_one);
  CHECK(hinted_text(long_one.error())
            .ends_with(": names in a GPT have at most 36 units of UTF-16, and this one has 37"));
  CHECK(!gpt_name("\xFF"));
  CHECK(!gpt_name("\xED\xA0\x80"));

  GptTable table = table_of_three(512);
  table.partitions[0].name = "\xFF";
  CHECK(!gpt_table(table));
  table.partitions.assign(129, GptPartition{});
  const auto too_many = gpt_table(table);
  REQUIRE(!too_many);
  CHECK(too_many.error().code == Errc::does_not_fit);
  CHECK(too_many.error().what == "a GPT has at most 128 partitions, and these are 129");
}

TEST_CASE("a protective MBR says what it can of a huge disk") {
  const std::vector<Patch> small = protective_mbr(4096);
  const std::vector<Patch> huge = protective_mbr(std::uint64_t{1} << 34);
  REQUIRE(small.size() == 1);
  CHECK(small.front().offset == 440);
  CHECK(load_le<std::uint32_t>(small.front().bytes, 6 + 12) == 4095);
  CHECK(load_le<std::uint32_t>(huge.front().bytes, 6 + 12) == 0xFFFFFFFF);
  CHECK(small.front().bytes[6 + 4] == std::byte{0xEE});
}
