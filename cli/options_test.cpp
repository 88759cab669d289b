// SPDX-License-Identifier: BSD-3-Clause
#include <catch2/catch.hpp>
#include <cstdlib>

#include "cli/error_text.h"
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
    if (!parsed) FAIL(error_text(parsed.error()));
  }

  OptionSet options;
  SourceOptions source;
  ImageOptions image{all_formats()};
};

SourceSpec source_spec(const std::vector<std::string>& words) {
  const Result<std::vector<SourceSpec>> specs = Parsed(words).source.specs();
  REQUIRE(specs);
  REQUIRE(specs->size() == 1);
  return specs->front();
}

/// What plans the image, as prepare() would ask for it.
Result<Planner> planner_of(const Parsed& parsed) {
  const FormatRegistry& formats = parsed.image.formats();
  return formats.configure(formats.resolve(parsed.image.format(), parsed.image.values()),
                           parsed.image.values());
}
Result<Planner> planner_of(const std::vector<std::string>& words) {
  return planner_of(Parsed(words));
}

ext2::Options ext2_options(const std::vector<std::string>& words) {
  const Parsed parsed(words);
  REQUIRE(planner_of(parsed));
  const Result<ext2::Options> options =
      ext2::read_options(parsed.image.format(), parsed.image.values());
  REQUIRE(options);
  return *options;
}

fat32::Options fat_options(const std::vector<std::string>& words) {
  const Parsed parsed(words);
  REQUIRE(planner_of(parsed));
  const Result<fat32::Options> options =
      fat32::read_options(parsed.image.format(), parsed.image.values());
  REQUIRE(options);
  return *options;
}

iso9660::Options iso_options(const std::vector<std::string>& words) {
  const Parsed parsed(words);
  REQUIRE(planner_of(parsed));
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
  const SourceSpec source = source_spec({});
  CHECK(source.path == "the-source");
  CHECK(source.at.empty());
  CHECK(source.one_file_system);
  CHECK(source.rules.empty());
  CHECK(source.changes.on_change == OnChange::error);
  const ext2::Options image = ext2_options({});
  CHECK(image.variant == ext2::Variant::ext2);
  CHECK_FALSE(image.size_bytes);
  CHECK_FALSE(image.free);
  CHECK_FALSE(image.journal);
  CHECK_FALSE(image.made_at_s);
}

TEST_CASE("rules keep the order of the command line, whichever option they came by") {
  const SourceSpec source = source_spec({"--exclude=a", "--include", "b", "--include=c",
                                         "--exclude", "d", "--fs=ext4", "--include=e"});
  std::string order;
  for (const PathRule& rule : source.rules) order += (rule.include ? '+' : '-') + rule.glob;
  CHECK(order == "-a+b+c-d+e");
}

TEST_CASE("the options of sources arrive, in whatever form they are written") {
  const SourceSpec source =
      source_spec({"--owner", ":7", "--mode-mask=0755", "--no-one-file-system", "--no-xattrs",
                   "--skip-unreadable", "--threads=3"});
  CHECK_FALSE(source.owner_uid);
  CHECK(source.owner_gid == 7);
  CHECK(source.mode_mask == 0755);
  CHECK_FALSE(source.one_file_system);
  CHECK_FALSE(source.xattrs);
  CHECK(source.skip_unreadable);
  CHECK(source.threads == 3);
  const SourceSpec mapped = source_spec({"--map-uid=1000:0", "--map-uid", "100000:1:65535"});
  REQUIRE(mapped.uid_map.size() == 2);
  CHECK(mapped.uid_map[1].count == 65535);
  CHECK(source_spec({"--on-change", "stale"}).changes.on_change == OnChange::stale);
}

TEST_CASE("the options of ext arrive") {
  const ext2::Options image = ext2_options(
      {"--fs=ext4", "--size=4G", "--inodes=10K", "--label=root",
       "--uuid=d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f", "--block-size=1024", "--inode-size=128",
       "--no-journal", "--reserved=5", "--features=^dir_index,64bit", "--features", "large_dir"});
  CHECK(image.variant == ext2::Variant::ext4);
  CHECK(image.size_bytes == std::uint64_t{4} << 30);
  CHECK(image.inodes == 10240);
  CHECK(image.label == "root");
  REQUIRE(image.uuid);
  CHECK(mkvirtfs::to_string(*image.uuid) == "d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f");
  CHECK(image.block_bytes == 1024);
  CHECK(image.inode_bytes == 128);
  CHECK(image.journal == false);
  CHECK(image.reserved_percent == 5);
  CHECK(image.features == std::vector<std::string>{"^dir_index", "64bit", "large_dir"});

  const ext2::Options extended =
      ext2_options({"--fs=ext4", "--size=min", "--no-lost-found",
                    "--extended=hash_seed=d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f,stride=16",
                    "--extended", "stripe_width=48,errors=panic"});
  CHECK(extended.smallest);
  CHECK_FALSE(extended.size_bytes);
  CHECK_FALSE(extended.lost_found);
  CHECK(mkvirtfs::to_string(extended.hash_seed.value()) == "d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f");
  CHECK(extended.stride_blocks == 16);
  CHECK(extended.stripe_width_blocks == 48);
  CHECK(extended.on_errors == ext2::OnErrors::panic);

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
  const fat32::Options patterns = fat_options(
      {"--fs=fat", "--fat-hidden=*.SYS", "--fat-hidden=/d/", "--fat-system=a", "--fat-readonly=b"});
  CHECK(patterns.hidden == std::vector<std::string>{"*.SYS", "/d/"});
  CHECK(patterns.system == std::vector<std::string>{"a"});
  CHECK(patterns.read_only == std::vector<std::string>{"b"});
  CHECK(patterns.defaults == Defaults::current);
  CHECK(fat_options({"--fs=fat", "--defaults=0.1"}).defaults == Defaults::v0_1);
}

TEST_CASE("the options of ISO 9660 arrive") {
  const iso9660::Options plain = iso_options({"--fs=iso"});
  CHECK(plain.level == 3);
  CHECK(plain.joliet == iso9660::Joliet::standard);
  CHECK(plain.deep == iso9660::DeepDirectories::keep);
  CHECK(plain.joliet_characters == iso9660::JolietCharacters::ucs2);
  CHECK(plain.application_use == std::byte{' '});
  const iso9660::Options old = iso_options({"--fs=iso", "--defaults=0.1"});
  CHECK(old.deep == iso9660::DeepDirectories::relocate);
  CHECK(old.joliet_characters == iso9660::JolietCharacters::utf16);
  CHECK(old.application_use == std::byte{0});
  CHECK(iso_options({"--fs=iso", "--defaults=0.1", "--deep-directories=keep"}).deep ==
        iso9660::DeepDirectories::keep);
  CHECK_FALSE(plain.pad);
  CHECK(plain.label.empty());
  CHECK_FALSE(plain.volume_time);
  const iso9660::Options all =
      iso_options({"--fs=iso", "--iso-level=1", "--joliet=long", "--deep-directories=relocate",
                   "--label=Disc", "--volume-field=publisher=A=B",
                   "--volume-field=volume-set=", "--pad", "--uuid=2026-01-31-23-59-59-00"});
  CHECK(all.level == 1);
  CHECK(all.joliet == iso9660::Joliet::longer);
  CHECK(all.deep == iso9660::DeepDirectories::relocate);
  CHECK(all.label == "Disc");
  REQUIRE(all.fields.size() == 2);
  CHECK(all.fields[0].field == iso9660::Field::publisher);
  CHECK(all.fields[0].text == "A=B");
  CHECK(all.fields[1].field == iso9660::Field::volume_set);
  CHECK(all.pad);
  CHECK(all.volume_time == "2026013123595900");
  CHECK(iso_options({"--fs=iso", "--joliet=no"}).joliet == iso9660::Joliet::none);
  const iso9660::Options pairs = iso_options({"--fs=iso", "--joliet=utf16"});
  CHECK(pairs.joliet == iso9660::Joliet::standard);
  CHECK(pairs.joliet_characters == iso9660::JolietCharacters::utf16);
  CHECK(iso_options({"--preset=cidata"}).label == "cidata");
  CHECK(fat_options({"--fs=fat", "--preset=cidata"}).symlinks == fat32::Symlinks::follow);
  CHECK(fat_options({"--fs=fat", "--preset=oemdrv", "--symlinks=skip"}).symlinks ==
        fat32::Symlinks::skip);
  CHECK(Parsed({"--preset=cidata"}).image.format().empty());
  CHECK(Parsed({"--fs=iso", "--dedupe"}).image.values().has("dedupe"));
  for (const char* bad : {"--iso-level=4", "--uuid=1234-ABCD", "--volume-field=publisher",
                          "--volume-field=author=me"}) {
    CAPTURE(bad);
    const Result<Planner> options = planner_of({"--fs=iso", bad});
    REQUIRE_FALSE(options);
    CHECK(options.error().code == Errc::usage);
    CHECK_THAT(error_text(options.error()), Catch::Contains(bad));
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
    const Result<Planner> options = planner_of(words);
    REQUIRE_FALSE(options);
    CHECK(options.error().code == Errc::usage);
    CHECK(error_text(options.error()) == words[1].substr(0, words[1].find('=')) + ": " +
                                             words[0].substr(5) + " has no such option");
  }
}

TEST_CASE("malformed values of FAT are named") {
  for (const char* bad :
       {"--cluster-size=0", "--cluster-size=x", "--sector-size=5G",
        "--uuid=d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f", "--time-zone=CET", "--time-zone=+24:00",
        "--time-zone=+1:00", "--time-zone=+01:60", "--hidden-sectors=-1", "--size=big"}) {
    CAPTURE(bad);
    const Result<Planner> options = planner_of({"--fs=fat", bad});
    REQUIRE_FALSE(options);
    CHECK(options.error().code == Errc::usage);
    CHECK_THAT(error_text(options.error()), Catch::Contains(bad));
  }
}

TEST_CASE("malformed values are named") {
  const std::vector<std::string> bad = GENERATE(values<std::vector<std::string>>({
      {"--owner=no-such-user-here"},
      {"--map-uid=1:2:"},
      {"--mode-mask=8"},
      {"--threads=257"},
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
  const Result<std::vector<SourceSpec>> sources = parsed.source.specs();
  const Result<Planner> image = planner_of(parsed);
  REQUIRE((!sources || !image));
  const Error& error = sources ? image.error() : sources.error();
  CHECK(error.code == Errc::usage);
  CHECK_THAT(error_text(error), Catch::Contains(bad[0]));
}

TEST_CASE("what a base manifest records are the options that make the image") {
  const Parsed parsed({"--exclude=b", "--threads=3", "--fs=ext4", "--no-xattrs", "--exclude=a",
                       "--cache-dir=none", "--features=64bit,large_dir", "--label", ""});
  CHECK(given_options(parsed.source.values(), parsed.image.format(), parsed.image.values(),
                      parsed.image.formats()) ==
        std::vector<std::string>{"--exclude=b", "--exclude=a", "--no-xattrs", "--fs=ext4",
                                 "--label=", "--features=64bit", "--features=large_dir"});
}

TEST_CASE("SOURCE_DATE_EPOCH clamps the tree's times and dates the file system") {
  {
    const Variable epoch("SOURCE_DATE_EPOCH", "1700000000");
    CHECK(image_spec({}, ImageOptions(all_formats()))->source_date_epoch_s == 1700000000);
    CHECK(source_date_epoch().value() == 1700000000);
  }
  CHECK_FALSE(image_spec({}, ImageOptions(all_formats()))->source_date_epoch_s);
  for (const char* bad : {"yesterday", "-1", "1.5", " 1", "99999999999999999999"}) {
    CAPTURE(bad);
    const Variable epoch("SOURCE_DATE_EPOCH", bad);
    const Result<ImageSpec> spec = image_spec({}, ImageOptions(all_formats()));
    REQUIRE_FALSE(spec);
    CHECK(spec.error().code == Errc::usage);
    CHECK_THAT(spec.error().what, Catch::Contains(bad));
    CHECK_FALSE(source_date_epoch());
  }
}

}  // namespace mkvirtfs::cli
