// SPDX-License-Identifier: BSD-3-Clause
// Plans every recipe of this folder and compares what it became with what the recipe says.
// README.md describes the format.
#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "block/image.h"
#include "cli/error_text.h"
#include "compose/formats.h"
#include "fsgen/tree/tree_builder.h"
#include "support/sha256.h"
#include "support/text.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
namespace fs = std::filesystem;

namespace {

/// A recipe's options: those of the format's rows, "fs" and "made-at".
struct Recipe {
  std::string format;
  OptionValues values{};
  std::optional<std::int64_t> made_at_s{};
};

Recipe parse_options(const std::string& text) {
  Recipe recipe{.format = std::string(all_formats().default_name())};
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.starts_with('#')) continue;
    const std::size_t equals = line.find('=');
    const std::string key = line.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : line.substr(equals + 1);
    if (key == "fs") {
      recipe.format = value;
    } else if (key == "made-at") {
      recipe.made_at_s = std::stoll(value);
    } else if (equals == std::string::npos) {
      recipe.values.add(key);
    } else {
      recipe.values.add(key, value);
    }
  }
  return recipe;
}

/// The judge of a format, silent when it has nothing against the image.
std::vector<std::string> judge_of(const std::string& format, const std::string& image) {
  if (format.starts_with("fat")) return {"fsck.fat", "-nv", image};
  if (format == "iso") {
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

/// Facts, differences from the source, then what lies where: data as the map has it, one line a
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
      const std::string_view kind = extent.kind == ExtentKind::derived ? "derived" : "computed";
      for (std::uint64_t at = extent.offset; at < extent.end(); at += block_bytes) {
        line(at, std::min(block_bytes, extent.end() - at), kind, printable(image.describe(at)));
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
  const Recipe options = parse_options(read_file(recipe / "options"));
  const Result<Planner> planner = all_formats().configure(options.format, options.values);
  if (!planner) FAIL(planner.error().what);
  const auto image =
      (*planner)({.tree = built.tree, .contents = built.store, .made_at_s = options.made_at_s});
  if (recipe.filename().string().starts_with("should-fail-")) {
    if (image) FAIL("a plan was made");
    compare(recipe / "expect", printable(cli::error_text(image.error())) + "\n");
    return;
  }
  if (!image) FAIL(image.error().what);
  ImageDevice device(*image, built.store);
  compare(recipe / "expect", describe(**image));
  compare(recipe / "sha256", digest_of(device));

  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  write_image(device, file);
  const Ran fsck =
      run_tool(judge_of(options.format, fmt::format("/proc/{}/fd/{}", ::getpid(), file.get())));
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
