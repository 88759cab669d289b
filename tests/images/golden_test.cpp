// SPDX-License-Identifier: BSD-3-Clause
// Plans every recipe of this folder and compares what it became with what the recipe says.
// README.md tells the format.
#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "block/image.h"
#include "fsgen/ext2/plan.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/iso9660/plan.h"
#include "fsgen/tree/tree_builder.h"
#include "support/sha256.h"
#include "support/text.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
namespace fs = std::filesystem;

namespace {

using PlanOptions = std::variant<ext2::Options, fat32::Options, iso9660::Options>;

struct Line {
  std::string key;
  std::string value;

  std::uint64_t number() const {
    const auto parsed = parse_size(value);
    if (!parsed) FAIL("not a size: " << key << "=" << value);
    return *parsed;
  }
  std::uint32_t small_number() const { return static_cast<std::uint32_t>(number()); }
};

std::vector<Line> parse_lines(const std::string& text) {
  std::vector<Line> parsed;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.starts_with('#')) continue;
    const std::size_t equals = line.find('=');
    parsed.push_back(
        {line.substr(0, equals), equals == std::string::npos ? "" : line.substr(equals + 1)});
  }
  return parsed;
}

ext2::Options parse_ext2_options(const std::vector<Line>& lines) {
  ext2::Options options;
  for (const Line& line : lines) {
    const auto& [key, value] = line;
    if (key == "fs") {
      options.variant = value == "ext2"   ? ext2::Variant::ext2
                        : value == "ext3" ? ext2::Variant::ext3
                                          : ext2::Variant::ext4;
    } else if (key == "block-size") {
      options.block_bytes = line.small_number();
    } else if (key == "inode-size") {
      options.inode_bytes = line.small_number();
    } else if (key == "size") {
      options.size_bytes = line.number();
    } else if (key == "free") {
      options.free = ext2::FreeBytes{line.number()};
    } else if (key == "inodes") {
      options.inodes = line.small_number();
    } else if (key == "reserved") {
      options.reserved_percent = line.small_number();
    } else if (key == "label") {
      options.label = value;
    } else if (key == "uuid") {
      options.uuid = ext2::parse_uuid(value);
      if (!options.uuid) FAIL("not a UUID: " << value);
    } else if (key == "journal") {
      options.journal = true;
    } else if (key == "features") {
      options.features.push_back(value);
    } else if (key == "made-at") {
      options.made_at_s = static_cast<std::int64_t>(line.number());
    } else {
      FAIL("unknown option: " << key);
    }
  }
  return options;
}

fat32::Options parse_fat_options(const std::vector<Line>& lines) {
  fat32::Options options;
  for (const Line& line : lines) {
    const auto& [key, value] = line;
    if (key == "fs") {
      if (value == "fat12") options.width = fat32::Width::fat12;
      if (value == "fat16") options.width = fat32::Width::fat16;
      if (value == "fat32") options.width = fat32::Width::fat32;
    } else if (key == "cluster-size") {
      options.cluster_bytes = line.small_number();
    } else if (key == "sector-size") {
      options.sector_bytes = line.small_number();
    } else if (key == "size") {
      options.size_bytes = line.number();
    } else if (key == "free") {
      options.free = fat32::FreeBytes{line.number()};
    } else if (key == "label") {
      options.label = value;
    } else if (key == "uuid") {
      options.volume_id = fat32::parse_volume_id(value);
      if (!options.volume_id) FAIL("not a volume id: " << value);
    } else if (key == "symlinks") {
      options.symlinks = value == "follow"  ? fat32::Symlinks::follow
                         : value == "error" ? fat32::Symlinks::error
                                            : fat32::Symlinks::skip;
    } else if (key == "names") {
      options.bad_names = value == "skip"    ? fat32::BadNames::skip
                          : value == "error" ? fat32::BadNames::error
                                             : fat32::BadNames::escape;
    } else if (key == "case-clashes") {
      options.case_clashes = value == "skip"     ? fat32::CaseClashes::skip
                             : value == "escape" ? fat32::CaseClashes::escape
                                                 : fat32::CaseClashes::error;
    } else if (key == "skip-unfit") {
      options.skip_unfit = true;
    } else if (key == "minutes-east") {
      options.time_zone.offset_minutes = static_cast<std::int32_t>(line.number());
    } else if (key == "hidden-sectors") {
      options.hidden_sectors = line.small_number();
    } else if (key == "made-at") {
      options.made_at_s = static_cast<std::int64_t>(line.number());
    } else {
      FAIL("unknown option: " << key);
    }
  }
  return options;
}

iso9660::Options parse_iso_options(const std::vector<Line>& lines) {
  iso9660::Options options;
  for (const Line& line : lines) {
    const auto& [key, value] = line;
    if (key == "iso-level") {
      options.level = line.small_number();
    } else if (key == "joliet") {
      options.joliet = value == "no"     ? iso9660::Joliet::none
                       : value == "long" ? iso9660::Joliet::longer
                                         : iso9660::Joliet::standard;
    } else if (key == "deep-directories") {
      if (value == "keep") options.deep = iso9660::DeepDirectories::keep;
    } else if (key == "label") {
      options.label = value;
    } else if (key == "publisher") {
      options.fields.push_back({iso9660::Field::publisher, value});
    } else if (key == "uuid") {
      options.volume_time = iso9660::parse_volume_time(value);
      if (!options.volume_time) FAIL("not a date: " << value);
    } else if (key == "pad") {
      options.pad = true;
    } else if (key == "cidata") {
      options.cidata = true;
    } else if (key == "made-at") {
      options.made_at_s = static_cast<std::int64_t>(line.number());
    } else if (key != "fs") {
      FAIL("unknown option: " << key);
    }
  }
  return options;
}

PlanOptions parse_options(const std::string& text) {
  const std::vector<Line> lines = parse_lines(text);
  const bool fat = std::ranges::any_of(
      lines, [](const Line& line) { return line.key == "fs" && line.value.starts_with("fat"); });
  if (fat) return parse_fat_options(lines);
  const bool iso = std::ranges::any_of(
      lines, [](const Line& line) { return line.key == "fs" && line.value == "iso"; });
  if (iso) return parse_iso_options(lines);
  return parse_ext2_options(lines);
}

/// The judge of a format, silent when it has nothing against the image.
std::vector<std::string> judge_of(const PlanOptions& options, const std::string& image) {
  if (std::holds_alternative<fat32::Options>(options)) return {"fsck.fat", "-nv", image};
  if (std::holds_alternative<iso9660::Options>(options)) {
    return {"xorriso", "-abort_on", "SORRY", "-indev", "stdio:" + image, "-check_media", "--"};
  }
  return {"e2fsck", "-fn", image};
}

struct DifferenceLines final : DifferenceSink {
  bool difference(const Difference& difference) override {
    text += fmt::format("{} {} {}\n", difference.kind, printable(difference.path),
                        printable(difference.what));
    return true;
  }
  std::string text;
};

/// Facts, differences from the source, then what lies where: data as the map tells it, one line a
/// thing.
std::string describe(const Image& image) {
  std::string text;
  for (const ImageFact& fact : image.facts()) {
    const std::string value =
        std::visit([](const auto& it) { return fmt::format("{}", it); }, fact.value);
    text += fact.name + (value.empty() ? "" : " ") + value + "\n";
  }
  DifferenceLines differences;
  image.differences(differences);
  text += differences.text;
  const std::uint64_t block_bytes = image.block_bytes();
  const auto line = [&](std::uint64_t offset, std::uint64_t length, std::string_view kind,
                        std::string_view what) {
    text += fmt::format("{} {} {}{}{}\n", offset, length, kind, what.empty() ? "" : " ", what);
  };
  for_each_extent(image, {0, image.size_bytes()}, [&](const Extent& extent) {
    if (extent.kind == ExtentKind::hole) {
      line(extent.offset, extent.length, "hole", "");
    } else if (extent.kind == ExtentKind::content) {
      line(extent.offset, extent.length, "content", printable(image.describe(extent.offset)));
    } else {
      for (std::uint64_t at = extent.offset; at < extent.end(); at += block_bytes) {
        line(at, std::min(block_bytes, extent.end() - at), "computed",
             printable(image.describe(at)));
      }
    }
    return true;
  });
  return text;
}

std::string digest_of(BlockDevice& device) {
  Sha256 digest;
  std::vector<std::byte> bytes(1 << 20);
  const std::uint64_t size = device.geometry().size_bytes;
  for (std::uint64_t at = 0; at < size; at += bytes.size()) {
    bytes.resize(std::min<std::uint64_t>(1 << 20, size - at));
    const auto read = device.read(at, bytes);
    if (!read) FAIL(read.error().what);
    digest.update(bytes);
  }
  const auto sum = digest.finish();
  return hex({reinterpret_cast<const char*>(sum.data()), sum.size()}) + "\n";
}

/// Compares with a recipe's file, line by line so that a change shows itself; or writes it, when
/// asked to.
void compare(const fs::path& file, const std::string& now) {
  if (std::getenv("MKVIRTFS_UPDATE_GOLDEN") != nullptr) {
    write_file(file, now);
    return;
  }
  std::istringstream want_lines(read_file(file));
  std::istringstream now_lines(now);
  std::string want, is, report;
  for (int number = 1; report.size() < 4000; ++number) {
    const bool more_want = static_cast<bool>(std::getline(want_lines, want));
    const bool more_now = static_cast<bool>(std::getline(now_lines, is));
    if (!more_want && !more_now) break;
    if (!more_want) want = "(nothing)";
    if (!more_now) is = "(nothing)";
    if (want != is)
      report += fmt::format("line {}\n  expected {}\n  found    {}\n", number, want, is);
  }
  INFO(file.string());
  CHECK(report == "");
}

void run_recipe(const fs::path& recipe) {
  const auto builder = TreeBuilder::parse(read_file(recipe / "tree"));
  if (!builder) FAIL(builder.error().what);
  const BuiltTree built = builder->build();
  const PlanOptions options = parse_options(read_file(recipe / "options"));
  const auto image =
      std::visit([&](const auto& chosen) { return plan(built.tree, chosen); }, options);
  if (recipe.filename().string().starts_with("should-fail-")) {
    if (image) FAIL("a plan was made");
    compare(recipe / "expect", printable(image.error().what) + "\n");
    return;
  }
  if (!image) FAIL(image.error().what);
  ImageDevice device(*image, built.store);
  compare(recipe / "expect", describe(**image));
  compare(recipe / "sha256", digest_of(device));

  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  write_image(device, file);
  const Ran fsck =
      run_tool(judge_of(options, fmt::format("/proc/{}/fd/{}", ::getpid(), file.get())));
  CAPTURE(fsck.output);
  CHECK(fsck.status == 0);
}

}  // namespace

TEST_CASE("every recipe gives the image it says") {
  // Other recipes are for the test of scripts/new-golden.
  const char* others = std::getenv("MKVIRTFS_IMAGES_DIR");
  std::vector<fs::path> recipes;
  for (const auto& entry :
       fs::directory_iterator(others != nullptr ? others : MKVIRTFS_IMAGES_DIR)) {
    if (entry.is_directory()) recipes.push_back(entry.path());
  }
  std::ranges::sort(recipes);
  REQUIRE(recipes.size() >= (others != nullptr ? 1 : 10));
  for (const fs::path& recipe : recipes) {
    DYNAMIC_SECTION(recipe.filename().string()) { run_recipe(recipe); }
  }
}
