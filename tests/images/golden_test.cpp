// SPDX-License-Identifier: BSD-3-Clause
// Plans every recipe of this folder and compares what it became with what the recipe says.
// README.md describes the format. A recipe with options is for the planner of a format, whose tree
// is that of the recipe; one with a command makes directories of it and goes all the way of the
// program, up to the device.
#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "block/image.h"
#include "bootsect/boot_pieces.h"
#include "cli/command_image.h"
#include "cli/error_text.h"
#include "compose/formats.h"
#include "compose/prepare.h"
#include "fsgen/tree/tree_builder.h"
#include "support/sha256.h"
#include "support/text.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/materialise.h"
#include "tests/support/recipe.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
namespace fs = std::filesystem;
using testing::all_recipes;
using testing::is_failure;
using testing::parse_options;
using testing::Recipe;

namespace {

/// The judge of a format, silent when it has nothing against the image.
std::vector<std::string> judge_of(const std::string& format, const std::string& image) {
  if (format.starts_with("fat")) return {"fsck.fat", "-nv", image};
  if (format == "iso") {
    return {"xorriso", "-abort_on", "SORRY", "-indev", "stdio:" + image, "-check_media", "--"};
  }
  if (format == "erofs") return {"fsck.erofs", "--extract", image};
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
std::string describe(const Image& image, bool is_disk = false) {
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
      for (std::uint64_t at = extent.offset; at < extent.end();) {
        const std::uint64_t end =
            std::min(is_disk ? image.described_end(at) : at + block_bytes, extent.end());
        line(at, end - at, kind, printable(image.describe(at)));
        at = end;
      }
    }
    return true;
  });
  return text;
}

std::string hex_digest(Sha256& digest) {
  const auto sum = digest.finish();
  return hex({reinterpret_cast<const char*>(sum.data()), sum.size()});
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
  return hex_digest(digest) + "\n";
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

/// The image as a file, and what a judge says of it, who may be silent.
void judge(BlockDevice& device, const std::function<std::vector<std::string>(std::string)>& words,
           const std::function<void(const std::string& output)>& check = {}) {
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  write_image(device, file);
  const Ran ran = run_tool(words(fmt::format("/proc/{}/fd/{}", ::getpid(), file.get())));
  CAPTURE(ran.output);
  CHECK(ran.status == 0);
  if (check) check(ran.output);
}

/// The words of a command are lines of a file.
std::vector<std::string> parse_command(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && !line.starts_with('#')) words.push_back(line);
  }
  return words;
}

Result<ImageSpec> parse_spec(const std::vector<std::string>& words) {
  cli::OptionSet options;
  cli::SourceOptions source;
  cli::ImageOptions image(all_formats());
  source.add_to(options);
  image.add_to(options);
  if (const auto parsed = options.parse(words); !parsed) return propagate(parsed);
  const Result<std::vector<cli::PlacedSource>> sources = source.words();
  if (!sources) return propagate(sources);
  Result<ImageSpec> spec = cli::command_image(source, *sources, image);
  if (spec) spec->source_date_epoch_s.reset();
  return spec;
}

/// The installed files of loaders that the recipe names, with their digests.
std::string describe_pieces(const std::string& names) {
  std::string text;
  std::istringstream lines(names);
  for (std::string line; std::getline(lines, line);) {
    const std::string name = line.substr(0, line.find(' '));
    const auto piece = bootsect::read_boot_piece(name, "");
    if (!piece) FAIL(piece.error().what);
    Sha256 digest;
    digest.update(piece->bytes);
    text += fmt::format("{} {}\n", name, hex_digest(digest));
  }
  return text;
}

/// fdisk lists as many partitions as there are.
void judge_disk(BlockDevice& device, const PreparedImage& prepared) {
  const auto count = std::ranges::count_if(
      prepared.partitions, [](const PreparedPartition& each) { return each.placed.number != 0; });
  std::string path;
  const auto words = [&](const std::string& image) {
    path = image;
    return std::vector<std::string>{"fdisk", "-b", fmt::format("{}", prepared.image->block_bytes()),
                                    "-l", image};
  };
  judge(device, words, [&](const std::string& output) {
    std::istringstream lines(output);
    std::ptrdiff_t listed = 0;
    // "Device" of an MBR with logical partitions has the extended one, too.
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with(path) && line.find("Ext'd") == line.npos) ++listed;
    }
    CHECK(listed == count);
  });
}

std::string describe(const PreparedImage& prepared) {
  std::string text;
  for (const Remark& remark : prepared.report.remarks) {
    text += fmt::format("remark {}{}\n", printable(remark.what), cli::hints_text(remark.hints));
  }
  for (const PreparedPartition& each : prepared.partitions) {
    text +=
        fmt::format("partition {} {} {} {} {} {}\n", each.placed.number, each.placed.range.offset,
                    each.placed.range.length, each.placed.type, each.placed.partuuid, each.format);
  }
  return text + describe(*prepared.image, !prepared.partitions.empty());
}

/// A place with the recipe's tree, which becomes the working directory for so long.
class RecipePlace {
 public:
  explicit RecipePlace(const BuiltTree& built) : before_(fs::current_path()) {
    testing::materialise(built, place_.path());
    fs::current_path(place_.path());
  }
  RecipePlace(const RecipePlace&) = delete;
  RecipePlace& operator=(const RecipePlace&) = delete;
  ~RecipePlace() { fs::current_path(before_); }

 private:
  TempDir place_;
  fs::path before_;
};

void run_command(const fs::path& recipe, const BuiltTree& built) {
  if (!testing::may_materialise(built)) return;
  if (fs::exists(recipe / "pieces")) {
    // Another version of the package makes another image: a new one takes a new recipe.
    const std::string known = read_file(recipe / "pieces");
    const std::string now = describe_pieces(known);
    compare(recipe / "pieces", now);
    if (std::getenv("MKVIRTFS_UPDATE_GOLDEN") == nullptr && known != now) return;
  }
  const RecipePlace place(built);
  Resources resources({.spool_directory = ""});
  auto spec = parse_spec(parse_command(read_file(recipe / "command")));
  auto prepared = spec ? prepare(*spec, resources) : Result<PreparedImage>(propagate(spec));
  if (is_failure(recipe)) {
    if (prepared) FAIL("an image was made");
    compare(recipe / "expect", printable(cli::error_text(prepared.error())) + "\n");
    return;
  }
  if (!prepared) FAIL(cli::error_text(prepared.error()));
  compare(recipe / "expect", describe(*prepared));
  compare(recipe / "sha256", digest_of(*prepared->device));
  if (!prepared->partitions.empty()) {
    judge_disk(*prepared->device, *prepared);
    return;
  }
  judge(*prepared->device, [&](const std::string& image) { return judge_of(spec->format, image); });
}

void run_recipe(const fs::path& recipe) {
  const auto builder = TreeBuilder::parse(read_file(recipe / "tree"));
  if (!builder) FAIL(builder.error().what);
  const BuiltTree built = builder->build();
  if (fs::exists(recipe / "command")) return run_command(recipe, built);
  const Recipe options = parse_options(read_file(recipe / "options"), all_formats());
  const Result<Planner> planner = all_formats().configure(options.format, options.values);
  if (!planner) FAIL(planner.error().what);
  const auto image =
      (*planner)({.tree = built.tree, .contents = built.store, .made_at_s = options.made_at_s});
  if (is_failure(recipe)) {
    if (image) FAIL("a plan was made");
    compare(recipe / "expect", printable(cli::error_text(image.error())) + "\n");
    return;
  }
  if (!image) FAIL(image.error().what);
  ImageDevice device(*image, built.store);
  compare(recipe / "expect", describe(**image));
  compare(recipe / "sha256", digest_of(device));
  judge(device, [&](const std::string& path) { return judge_of(options.format, path); });
}

}  // namespace

TEST_CASE("every recipe gives the image it says") {
  const std::vector<fs::path> recipes = all_recipes();
  REQUIRE(recipes.size() >= (std::getenv("MKVIRTFS_IMAGES_DIR") != nullptr ? 1 : 10));
  for (const fs::path& recipe : recipes) {
    DYNAMIC_SECTION(recipe.filename().string()) { run_recipe(recipe); }
  }
}
