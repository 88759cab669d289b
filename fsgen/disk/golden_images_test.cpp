// SPDX-License-Identifier: BSD-3-Clause
// The images of the recipes, read back as sources: each is its tree again, but for what its format
// does not have; and damaged in each of their structures, none makes the reader hang, crash or take
// more memory than its image is worth.
#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "block/image.h"
#include "fsgen/disk/testing/format_views.h"
#include "fsgen/disk/testing/tree_view.h"
#include "fsgen/erofs/format.h"
#include "fsgen/ext2/format.h"
#include "fsgen/fat32/format.h"
#include "fsgen/image/format_registry.h"
#include "fsgen/image/planned_image.h"
#include "fsgen/iso9660/format.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/recipe.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::disk::testing;
namespace fs = std::filesystem;

namespace {

const FormatRegistry& formats() {
  static const Format* const all[] = {&ext2::format(), &fat32::format(), &iso9660::format(),
                                      &erofs::format()};
  static const FormatRegistry registry(all, {});
  return registry;
}

struct Planned {
  mkvirtfs::testing::Recipe recipe;
  BuiltTree built;
  std::shared_ptr<const PlannedImage> image;
};

/// nullopt: it is for the program, or makes none.
std::optional<Planned> plan_recipe(const fs::path& folder) {
  if (mkvirtfs::testing::is_failure(folder) || !fs::exists(folder / "options")) return std::nullopt;
  const auto builder = TreeBuilder::parse(read_file(folder / "tree"));
  if (!builder) FAIL(builder.error().what);
  Planned made{mkvirtfs::testing::parse_options(read_file(folder / "options"), formats()),
               builder->build(), nullptr};
  const auto planner = formats().configure(made.recipe.format, made.recipe.values);
  if (!planner) FAIL(planner.error().what);
  auto image = (*planner)(
      {.tree = made.built.tree, .contents = made.built.store, .made_at_s = made.recipe.made_at_s});
  if (!image) FAIL(image.error().what);
  made.image = std::move(*image);
  return made;
}

std::uint64_t number_of(const Image& image, std::string_view fact) {
  for (const ImageFact& each : image.facts()) {
    if (each.name == fact) return std::get<std::uint64_t>(each.value);
  }
  FAIL("no fact " << fact);
  return 0;
}

/// The paths that the image does not show as the source has them: the inspect command lists them.
struct DifferentPaths final : DifferenceSink {
  bool difference(const Difference& difference) override {
    paths.insert(difference.path);
    return true;
  }
  std::set<std::string> paths;
};

std::string differences_of(const Planned& planned, const ReadBack& back) {
  const std::string& format = planned.recipe.format;
  DifferentPaths different;
  planned.image->differences(different);
  View expected = all_attributes;
  View found = all_attributes;
  if (format.starts_with("ext")) {
    expected = ext_view(static_cast<std::uint32_t>(number_of(*planned.image, "inode_bytes")));
  } else if (format.starts_with("fat")) {
    // Hours of a time zone are in the image, and nothing in it says so.
    const bool has_zone = !planned.recipe.values.all("time-zone").empty();
    const bool has_rules = !planned.recipe.values.all("fat-readonly").empty();
    const auto known = [=](const View& view) {
      return [=](const SourceTree& tree, NodeNo no) {
        std::string text = view(tree, no);
        if (has_zone) text.resize(std::min(text.size(), text.rfind(' ')));
        if (has_rules) text.erase(0, std::min(text.size(), text.find(' ')));
        return text;
      };
    };
    expected = known(expected_fat_view);
    found = known(fat_view);
  } else if (format == "iso") {
    expected = iso_view;
  } else if (!planned.recipe.values.all("inode-times").empty()) {
    expected = [&](const SourceTree& tree, NodeNo no) {
      return with_time(tree, no, {planned.recipe.made_at_s.value_or(0), 0});
    };
  }
  // Remarks are of what the image has and no tree.
  return differences(
      back, planned.built,
      [&](const SourceTree& tree, NodeNo no) {
        const std::string path = tree.path(no);
        const bool is_left_out =
            different.paths.contains(path) && back.layer.tree->find_path(path) == nullptr;
        return is_left_out ? std::string() : expected(tree, no);
      },
      found,
      [&](std::string path) {
        // Itself, or below a symlink that was followed.
        for (; !path.empty();
             path.resize(path.find_last_of('/') == path.npos ? 0 : path.rfind('/'))) {
          if (path == "lost+found" || different.paths.contains(path)) return true;
        }
        return false;
      });
}

/// An image that was planned, with other bytes in one place.
class ChangedImage final : public ByteSource {
 public:
  explicit ChangedImage(const Planned& planned) : device_(planned.image, planned.built.store) {}

  void change(std::uint64_t offset, std::vector<std::byte> bytes) {
    offset_ = offset;
    bytes_ = std::move(bytes);
  }
  std::uint64_t size_bytes() const noexcept override { return device_.geometry().size_bytes; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    const auto read = device_.read(offset, out);
    if (!read) return propagate(read);
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
      const std::uint64_t at = offset_ + i;
      if (at >= offset && at - offset < out.size()) out[at - offset] = bytes_[i];
    }
    return {};
  }
  std::string name() const override { return "image"; }

 private:
  ImageDevice device_;
  std::uint64_t offset_ = 0;
  std::vector<std::byte> bytes_;
};

disk::DiskFormat disk_format_of(const std::string& format) {
  if (format.starts_with("ext")) return disk::DiskFormat::ext;
  if (format.starts_with("fat")) return disk::DiskFormat::fat;
  return format == "iso" ? disk::DiskFormat::iso : disk::DiskFormat::erofs;
}

/// The blocks that are no file's, one of each structure: of those that differ in numbers alone, the
/// first few.
std::vector<Range> structures_of(const Image& image) {
  std::vector<Range> found;
  std::map<std::string, int> seen;
  for_each_extent(image, {0, image.size_bytes()}, [&](const Extent& extent) {
    if (extent.kind == ExtentKind::hole || extent.kind == ExtentKind::content) return true;
    for (std::uint64_t at = extent.offset; at < extent.end(); at += image.block_bytes()) {
      std::string name = image.describe(at);
      std::erase_if(name, [](char c) { return c >= '0' && c <= '9'; });
      if (++seen[name] > 2) continue;
      found.push_back({at, std::min<std::uint64_t>(image.block_bytes(), extent.end() - at)});
    }
    return true;
  });
  return found;
}

std::uint64_t peak_memory_bytes() {
  rusage usage{};
  REQUIRE(::getrusage(RUSAGE_SELF, &usage) == 0);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

/// Another bit, another field, or another block.
std::vector<std::byte> mutation(int kind, std::vector<std::byte> block, std::mt19937_64& random) {
  const std::size_t at = random() % block.size();
  switch (kind) {
    case 0:
      block[at] ^= static_cast<std::byte>(1 << random() % 8);
      break;
    case 1:
      for (std::size_t i = at & ~std::size_t{3}; i < block.size() && i < (at | 3) + 1; ++i) {
        block[i] = static_cast<std::byte>(random() % 2 != 0 ? 0xff : random());
      }
      break;
    case 2:
      std::ranges::generate(block, [&] { return static_cast<std::byte>(random()); });
      break;
    default:
      std::ranges::fill(block, std::byte{0});
      break;
  }
  return block;
}

}  // namespace

TEST_CASE("the reader finds the tree of every recipe in its image") {
  std::set<std::string> seen;
  for (const fs::path& folder : mkvirtfs::testing::all_recipes()) {
    const std::optional<Planned> planned = plan_recipe(folder);
    if (!planned) continue;
    seen.insert(planned->recipe.format);
    INFO(folder.filename().string());
    const TempDir place(fast_place());
    ImageDevice device(planned->image, planned->built.store);
    write_image(device, place / "image");
    CHECK(differences_of(*planned, read_back(place / "image")) == "");
  }
  CHECK(seen.size() >= 8);
}

// MKVIRTFS_MUTATIONS: how many of each structure and kind; one in a plain run.
TEST_CASE("no damage of a recipe's image makes the reader hang, crash or take much memory") {
  const char* const asked = std::getenv("MKVIRTFS_MUTATIONS");
  const int count = asked != nullptr ? std::stoi(asked) : 1;
  std::mt19937_64 random(20261130);
  const std::uint64_t before_bytes = peak_memory_bytes();
  std::uint64_t read_count = 0;
  std::uint64_t noticed_count = 0;
  for (const fs::path& folder : mkvirtfs::testing::all_recipes()) {
    const std::optional<Planned> planned = plan_recipe(folder);
    if (!planned) continue;
    INFO(folder.filename().string());
    const auto image = std::make_shared<ChangedImage>(*planned);
    for (const Range& structure : structures_of(*planned->image)) {
      image->change(0, {});
      std::vector<std::byte> block(structure.length);
      REQUIRE(image->read(structure.offset, block));
      for (int i = 0; i < 4 * count; ++i) {
        image->change(structure.offset, mutation(i % 4, block, random));
        const auto start = std::chrono::steady_clock::now();
        const auto read =
            disk::read_disk_here(image, disk_format_of(planned->recipe.format), {}, null_log());
        CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
        ++read_count;
        if (!read || read->problem_count != 0) ++noticed_count;
      }
    }
  }
  CHECK(peak_memory_bytes() - before_bytes < (std::uint64_t{500} << 20));
  CHECK(read_count > 1000);
  CHECK(noticed_count > read_count / 10);
}
