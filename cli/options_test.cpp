// SPDX-License-Identifier: BSD-3-Clause
#include <catch2/catch.hpp>
#include <cstdlib>

#include "cli/image_options.h"
#include "cli/source_options.h"
#include "compose/formats.h"
#include "fsgen/ext2/format.h"
#include "fsgen/fat32/format.h"
#include "fsgen/iso9660/format.h"

namespace mkvirtfs::cli {
namespace {

struct Parsed {
  explicit Parsed(std::vector<std::string> words) {
    source.add_to(options);
    image.add_to(options);
    words.emplace_back("the-source");
    const auto parsed = options.parse(words);
    if (!parsed) FAIL(parsed.error().what);
  }

  OptionSet options;
  SourceOptions source;
  ImageOptions image{all_formats()};
};

ScanOptions scan_options(const std::vector<std::string>& words) {
  const Result<ScanOptions> options = Parsed(words).source.scan_options();
  REQUIRE(options);
  return *options;
}

ext2::Options ext2_options(const std::vector<std::string>& words) {
  const Parsed parsed(words);
  REQUIRE(parsed.image.planner());
  const Result<ext2::Options> options =
      ext2::read_options(parsed.image.format(), parsed.image.values());
  REQUIRE(options);
  return *options;
}

fat32::Options fat_options(const std::vector<std::string>& words) {
  const Parsed parsed(words);
  REQUIRE(parsed.image.planner());
  const Result<fat32::Options> options =
      fat32::read_options(parsed.image.format(), parsed.image.values());
  REQUIRE(options);
  return *options;
}

iso9660::Options iso_options(const std::vector<std::string>& words) {
  const Parsed parsed(words);
  REQUIRE(parsed.image.planner());
  const Result<iso9660::Options> options =
      iso9660::read_options(parsed.image.format(), parsed.image.values());
  REQUIRE(options);
  return *options;
}

/// Sets an environment variable for the life of the object.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~Variable() { ::unsetenv(name_); }

 private:
  const char* name_;
};

}  // namespace

TEST_CASE("without options everything is as documented") {
  const ScanOptions scan = scan_options({});
  CHECK(scan.one_file_system);
  CHECK(scan.entries.rules.empty());
  CHECK(scan.entries.mode_mask == 07777);
  CHECK(scan.entries.xattrs);
  CHECK_FALSE(scan.skip_unreadable);
  CHECK_FALSE(scan.entries.newest_mtime_s);
  CHECK_FALSE(scan.entries.owner_uid);
  CHECK(Parsed({}).source.change_rules().on_change == OnChange::error);
  CHECK(Parsed({}).source.words().value() == std::vector<PlacedSource>{{"the-source", ""}});
  const ext2::Options image = ext2_options({});
  CHECK(image.variant == ext2::Variant::ext2);
  CHECK_FALSE(image.size_bytes);
  CHECK_FALSE(image.free);
  CHECK_FALSE(image.journal);
  CHECK_FALSE(image.made_at_s);
}

TEST_CASE("rules keep the order of the command line, whichever option they came by") {
  const ScanOptions options = scan_options({"--exclude=a", "--include", "b", "--include=c",
                                            "--exclude", "d", "--fs=ext4", "--include=e"});
  std::string order;
  for (const PathRule& rule : options.entries.rules)
    order += (rule.include ? '+' : '-') + rule.glob;
  CHECK(order == "-a+b+c-d+e");
}

TEST_CASE("owners and id maps are numbers or names") {
  const ScanOptions both = scan_options({"--owner=root:7"});
  CHECK(both.entries.owner_uid == 0);
  CHECK(both.entries.owner_gid == 7);
  const ScanOptions group = scan_options({"--owner", ":4294967294"});
  CHECK_FALSE(group.entries.owner_uid);
  CHECK(group.entries.owner_gid == 4294967294);
  const ScanOptions maps =
      scan_options({"--map-uid=1000:0", "--map-uid", "100000:1:65535", "--map-gid=5:6:1"});
  REQUIRE(maps.entries.uid_map.size() == 2);
  CHECK(maps.entries.uid_map[0].from == 1000);
  CHECK(maps.entries.uid_map[0].to == 0);
  CHECK(maps.entries.uid_map[0].count == 1);
  CHECK(maps.entries.uid_map[1].from == 100000);
  CHECK(maps.entries.uid_map[1].count == 65535);
  REQUIRE(maps.entries.gid_map.size() == 1);
}

TEST_CASE("all other options arrive") {
  const ScanOptions scan = scan_options({"--mode-mask=0755", "--no-one-file-system", "--no-xattrs",
                                         "--skip-unreadable", "--threads=3"});
  CHECK(scan.entries.mode_mask == 0755);
  CHECK_FALSE(scan.one_file_system);
  CHECK_FALSE(scan.entries.xattrs);
  CHECK(scan.skip_unreadable);
  CHECK(scan.threads == 3);
  CHECK(Parsed({"--on-change=zero"}).source.change_rules().on_change == OnChange::zero);
  CHECK(Parsed({"--on-change", "stale"}).source.change_rules().on_change == OnChange::stale);
  CHECK(Parsed({}).source.change_rules().check == ChangeCheck::ctime);
  CHECK(Parsed({"--change-check=mtime"}).source.change_rules().check == ChangeCheck::mtime);

  const ext2::Options image = ext2_options(
      {"--fs=ext4", "--size=4G", "--inodes=10K", "--label=root",
       "--uuid=d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f", "--block-size=1024", "--inode-size=128",
       "--no-journal", "--reserved=5", "--features=^dir_index,64bit", "--features", "large_dir"});
  CHECK(image.variant == ext2::Variant::ext4);
  CHECK(image.size_bytes == std::uint64_t{4} << 30);
  CHECK(image.inodes == 10240);
  CHECK(image.label == "root");
  REQUIRE(image.uuid);
  CHECK(ext2::to_string(*image.uuid) == "d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f");
  CHECK(image.block_bytes == 1024);
  CHECK(image.inode_bytes == 128);
  CHECK(image.journal == false);
  CHECK(image.reserved_percent == 5);
  CHECK(image.features == std::vector<std::string>{"^dir_index", "64bit", "large_dir"});

  CHECK(ext2_options({"--fs=ext3"}).variant == ext2::Variant::ext3);
  CHECK(ext2_options({"--journal"}).journal == true);
  CHECK(std::get<FreePercent>(*ext2_options({"--free=25%"}).free).percent == 25);
  CHECK(std::get<FreeBytes>(*ext2_options({"--free=3M"}).free).bytes == 3u << 20);
}

TEST_CASE("the options of FAT arrive") {
  CHECK_FALSE(fat_options({"--fs=fat"}).width);
  CHECK(fat_options({"--fs=fat12"}).width == fat32::Width::fat12);
  CHECK(fat_options({"--fs=fat16"}).width == fat32::Width::fat16);
  const fat32::Options plain = fat_options({"--fs=fat32"});
  CHECK(plain.width == fat32::Width::fat32);
  CHECK(plain.sector_bytes == 512);
  CHECK(plain.symlinks == fat32::Symlinks::skip);
  CHECK(plain.bad_names == fat32::BadNames::escape);
  CHECK(plain.case_clashes == fat32::CaseClashes::error);
  CHECK_FALSE(plain.skip_unfit);
  CHECK(plain.time_zone.offset_minutes == 0);
  const fat32::Options all = fat_options(
      {"--fs=fat", "--size=1G", "--cluster-size=4K", "--sector-size=1024", "--label=boot",
       "--uuid=12ab-34CD", "--symlinks=follow", "--names=skip", "--case-clashes=escape",
       "--skip-unfit", "--time-zone=-03:30", "--hidden-sectors=2048"});
  CHECK(all.size_bytes == 1u << 30);
  CHECK(all.cluster_bytes == 4096);
  CHECK(all.sector_bytes == 1024);
  CHECK(all.label == "boot");
  CHECK(all.volume_id == 0x12AB34CD);
  CHECK(all.symlinks == fat32::Symlinks::follow);
  CHECK(all.bad_names == fat32::BadNames::skip);
  CHECK(all.case_clashes == fat32::CaseClashes::escape);
  CHECK(all.skip_unfit);
  CHECK(all.time_zone.offset_minutes == -210);
  CHECK(all.hidden_sectors == 2048);
  CHECK(fat_options({"--fs=fat", "--time-zone=local"}).time_zone.local);
  CHECK(fat_options({"--fs=fat", "--time-zone=utc"}).time_zone.offset_minutes == 0);
  CHECK(fat_options({"--fs=fat", "--symlinks=error"}).symlinks == fat32::Symlinks::error);
  CHECK(fat_options({"--fs=fat", "--names=error"}).bad_names == fat32::BadNames::error);
  CHECK(fat_options({"--fs=fat", "--case-clashes=skip"}).case_clashes == fat32::CaseClashes::skip);
  CHECK(std::get<FreePercent>(*fat_options({"--fs=fat", "--free=25%"}).free).percent == 25);
  CHECK_FALSE(Parsed({"--fs=fat"}).image.holds().xattrs);
  CHECK(Parsed({"--fs=ext4"}).image.holds().xattrs);
}

TEST_CASE("the options of ISO 9660 arrive") {
  const iso9660::Options plain = iso_options({"--fs=iso"});
  CHECK(plain.level == 3);
  CHECK(plain.joliet == iso9660::Joliet::standard);
  CHECK(plain.deep == iso9660::DeepDirectories::relocate);
  CHECK_FALSE(plain.pad);
  CHECK_FALSE(plain.cidata);
  CHECK_FALSE(plain.volume_time);
  const iso9660::Options all =
      iso_options({"--fs=iso", "--iso-level=1", "--joliet=long", "--deep-directories=keep",
                   "--label=Disc", "--volume-field=publisher=A=B",
                   "--volume-field=volume-set=", "--pad", "--uuid=2026-01-31-23-59-59-00"});
  CHECK(all.level == 1);
  CHECK(all.joliet == iso9660::Joliet::longer);
  CHECK(all.deep == iso9660::DeepDirectories::keep);
  CHECK(all.label == "Disc");
  REQUIRE(all.fields.size() == 2);
  CHECK(all.fields[0].field == iso9660::Field::publisher);
  CHECK(all.fields[0].text == "A=B");
  CHECK(all.fields[1].field == iso9660::Field::volume_set);
  CHECK(all.pad);
  CHECK(all.volume_time == "2026013123595900");
  CHECK(iso_options({"--fs=iso", "--joliet=no"}).joliet == iso9660::Joliet::none);
  CHECK(iso_options({"--preset=cidata"}).cidata);
  CHECK(Parsed({"--preset=cidata"}).image.format() == "iso");
  CHECK(Parsed({"--fs=iso", "--dedupe"}).image.values().has("dedupe"));
  CHECK_FALSE(Parsed({"--fs=iso"}).image.holds().xattrs);
  for (const char* bad : {"--iso-level=4", "--uuid=1234-ABCD", "--volume-field=publisher",
                          "--volume-field=author=me"}) {
    CAPTURE(bad);
    const Result<Planner> options = Parsed({"--fs=iso", bad}).image.planner();
    REQUIRE_FALSE(options);
    CHECK(options.error().code == Errc::usage);
    CHECK_THAT(options.error().what, Catch::Contains(bad));
  }
}

TEST_CASE("options of another format are refused") {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"--fs=fat", "--inodes=5"},
           {"--fs=fat32", "--no-journal"},
           {"--fs=fat16", "--features=dir_index"},
           {"--fs=ext4", "--cluster-size=4096"},
           {"--fs=ext2", "--skip-unfit"},
           {"--fs=ext3", "--symlinks=skip"},
           {"--fs=iso", "--size=1G"},
           {"--fs=iso", "--journal"},
           {"--fs=iso", "--skip-unfit"},
           {"--fs=fat", "--joliet=no"},
           {"--fs=ext4", "--preset=cidata"},
       }) {
    CAPTURE(words);
    const Result<Planner> options = Parsed(words).image.planner();
    REQUIRE_FALSE(options);
    CHECK(options.error().code == Errc::usage);
    CHECK(options.error().what ==
          words[1].substr(0, words[1].find('=')) + " does not go with " + words[0]);
  }
}

TEST_CASE("malformed values of FAT are named") {
  for (const char* bad :
       {"--cluster-size=0", "--cluster-size=x", "--sector-size=5G",
        "--uuid=d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f", "--time-zone=CET", "--time-zone=+24:00",
        "--time-zone=+1:00", "--time-zone=+01:60", "--hidden-sectors=-1", "--size=big"}) {
    CAPTURE(bad);
    const Result<Planner> options = Parsed({"--fs=fat", bad}).image.planner();
    REQUIRE_FALSE(options);
    CHECK(options.error().code == Errc::usage);
    CHECK_THAT(options.error().what, Catch::Contains(bad));
  }
}

TEST_CASE("malformed values are named") {
  const std::vector<std::string> bad = GENERATE(values<std::vector<std::string>>({
      {"--owner=no-such-user-here"},
      {"--owner=0:no-such-group-here"},
      {"--owner=:"},
      {"--owner=4294967295"},
      {"--owner=-1"},
      {"--map-uid=1"},
      {"--map-uid=1:2:0"},
      {"--map-uid=1:2:3:4"},
      {"--map-uid=1:2:"},
      {"--map-uid=0:4294967295"},
      {"--map-uid=4294967295:0:2"},
      {"--map-uid=0:5:4294967295"},
      {"--map-gid=a:b"},
      {"--mode-mask=8"},
      {"--mode-mask=17777"},
      {"--mode-mask=rwx"},
      {"--size=4Q"},
      {"--size=-1"},
      {"--free=lots"},
      {"--free=%"},
      {"--free=-3%"},
      {"--inodes=4G"},
      {"--uuid=1234"},
      {"--block-size=0"},
      {"--inode-size=big"},
      {"--reserved=51"},
  }));
  CAPTURE(bad);
  const Parsed parsed(bad);
  const Result<ScanOptions> scan = parsed.source.scan_options();
  const Result<Planner> image = parsed.image.planner();
  REQUIRE((!scan || !image));
  const Error& error = scan ? image.error() : scan.error();
  CHECK(error.code == Errc::usage);
  CHECK_THAT(error.what, Catch::Contains(bad[0]));
}

TEST_CASE("mappings that overlap are both named") {
  const Result<ScanOptions> options =
      Parsed({"--map-uid=0:1000:10", "--map-uid=20:0", "--map-uid=9:5"}).source.scan_options();
  REQUIRE_FALSE(options);
  CHECK(options.error().what == "--map-uid=0:1000:10 and --map-uid=9:5 map the same id twice");
}

TEST_CASE("SOURCE_DATE_EPOCH clamps the tree's times and dates the file system") {
  {
    const Variable epoch("SOURCE_DATE_EPOCH", "1700000000");
    CHECK(scan_options({}).entries.newest_mtime_s == 1700000000);
    CHECK(source_date_epoch().value() == 1700000000);
  }
  for (const char* bad : {"yesterday", "-1", "1.5", " 1", "99999999999999999999"}) {
    CAPTURE(bad);
    const Variable epoch("SOURCE_DATE_EPOCH", bad);
    const Result<ScanOptions> options = Parsed({}).source.scan_options();
    REQUIRE_FALSE(options);
    CHECK(options.error().code == Errc::usage);
    CHECK_THAT(options.error().what, Catch::Contains(bad));
    CHECK_FALSE(source_date_epoch());
  }
}

}  // namespace mkvirtfs::cli
