// SPDX-License-Identifier: BSD-3-Clause
// Random trees, every width: the image must please fsck.fat and be the source again, to a reader
// that follows its chains and to mtools.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <tuple>

#include "fsgen/fat32/layout.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/fat32/testing/read_back.h"
#include "fsgen/image/size_search.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/support/data_order.h"
#include "tests/support/property.h"
#include "tests/support/random_tree.h"

using namespace mkvirtfs;
using fat32::Options;
using fat32::Width;

namespace {

/// What every width can hold.
testing::RandomTreeOptions trees(std::size_t most_name_bytes) {
  testing::RandomTreeOptions options;
  options.most_name_bytes = most_name_bytes;
  options.most_in_a_crowd = 500;
  options.most_file_bytes = 1 << 18;
  options.most_sparse_bytes = 1 << 20;
  options.most_path_bytes = 400;
  options.xattrs = false;
  return options;
}

rc::Gen<Options> random_options() {
  return rc::gen::map(
      rc::gen::tuple(rc::gen::element(0, 0, 12, 16, 32), rc::gen::element(512u, 512u, 2048u, 4096u),
                     rc::gen::inRange<std::uint64_t>(0, 4u << 20), rc::gen::arbitrary<bool>()),
      [](const auto& drawn) {
        const auto& [width, sector_bytes, free_bytes, labelled] = drawn;
        Options options;
        if (width == 12) options.width = Width::fat12;
        if (width == 16) options.width = Width::fat16;
        if (width == 32) options.width = Width::fat32;
        options.sector_bytes = sector_bytes;
        options.free = FreeBytes{free_bytes};
        if (labelled) options.label = "random";
        options.case_clashes = fat32::CaseClashes::escape;
        return options;
      });
}

template <class Judge>
void check_trees(int cases, std::size_t most_name_bytes, Judge&& judge) {
  testing::check_property(cases, [&] {
    const testing::RandomTree tree = *testing::random_tree(trees(most_name_bytes));
    const Options options = *random_options().as("options");
    RC_LOG() << fmt::format("width {}, sectors of {} bytes\n",
                            options.width ? fat32::name_of(*options.width) : "by size",
                            options.sector_bytes);
    const auto order = *rc::gen::element(0u, 1u, 2u, 3u).as("data order");
    const BuiltTree built = tree.build_in_order(order);
    const auto image = fat32::plan(built.tree, options);
    if (!image) {
      // The one thing that chance may ask for in vain.
      if (options.width == Width::fat12) return;
      RC_FAIL(image.error().what);
    }
    const std::string objections =
        judge(*image, built) + testing::objections_to_data_order(**image, *built.tree);
    if (!objections.empty()) RC_FAIL(objections);
  });
}

}  // namespace

TEST_CASE("random trees are clean and whole as FAT") {
  check_trees(120, 255, [](const auto& image, const BuiltTree& built) {
    return fat32::testing::remarks_of_fsck(image, built) +
           fat32::testing::differences(image, built);
  });
}

TEST_CASE("random trees come out of mtools as they went in") {
  check_trees(60, 80, [](const auto& image, const BuiltTree& built) {
    return fat32::testing::differences_by_mtools(image, built);
  });
}

TEST_CASE("no default makes a size too small that 0.1 could have") {
  testing::check_property(100, [] {
    TreeBuilder builder;
    const auto crowd = *rc::gen::inRange(0, 3000).as("files in the root");
    for (int i = 0; i < crowd; ++i) builder.file(fmt::format("f{}", i), i % 8 == 0 ? "x" : "");
    const BuiltTree built = builder.build();
    Options options = *random_options().as("options");
    options.free.reset();
    const auto fits = [&](Defaults defaults, std::uint64_t sectors) {
      Options sized = options;
      sized.defaults = defaults;
      sized.size_bytes = sectors * options.sector_bytes;
      return fat32::plan(built.tree, sized);
    };
    // The smallest size of 0.1, and one not far from it.
    std::uint64_t sectors = smallest_that_holds(
        std::uint64_t{1}, (std::uint64_t{64} << 20) / options.sector_bytes,
        [&](std::uint64_t count) { return fits(Defaults::v0_1, count).has_value(); });
    sectors += *rc::gen::inRange<std::uint64_t>(0, 200).as("more sectors");
    const auto before = fits(Defaults::v0_1, sectors);
    // Some sizes between those of two widths are none's; those of diskettes are theirs alone.
    if (!before || fat32::floppy_layout((*before)->size_bytes())) return;
    const auto now = fits(Defaults::current, sectors);
    if (!now) RC_FAIL(now.error().what);
    const std::string objections = fat32::testing::remarks_of_fsck(*now, built);
    if (!objections.empty()) RC_FAIL(objections);
  });
}
