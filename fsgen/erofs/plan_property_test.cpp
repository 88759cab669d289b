// SPDX-License-Identifier: BSD-3-Clause
// Random trees, every shape of EROFS: the image must be the source again to our reader, with blocks
// of any size, and to fsck.erofs with those that it knows.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <tuple>

#include "block/image.h"
#include "fsgen/erofs/plan.h"
#include "fsgen/erofs/testing/judges.h"
#include "fsgen/erofs/testing/read_back.h"
#include "tests/support/data_order.h"
#include "tests/support/property.h"
#include "tests/support/random_tree.h"

using namespace mkvirtfs;
using erofs::InodeTimes;
using erofs::Options;

namespace {

rc::Gen<Options> random_options() {
  return rc::gen::map(
      rc::gen::tuple(rc::gen::element(512u, 1024u, 2048u, 4096u, 4096u, 16384u, 65536u),
                     rc::gen::arbitrary<bool>(), rc::gen::arbitrary<bool>()),
      [](const auto& drawn) {
        const auto& [block_bytes, tail_packing, build] = drawn;
        Options options;
        options.block_bytes = block_bytes;
        options.tail_packing = tail_packing;
        options.inode_times = build ? InodeTimes::build : InodeTimes::keep;
        options.label = "random";
        return options;
      });
}

void show(const Options& options) {
  RC_LOG() << fmt::format("blocks of {}, tails {}, times {}\n", options.block_bytes,
                          options.tail_packing, static_cast<int>(options.inode_times));
}

}  // namespace

TEST_CASE("random trees are the source again, with blocks of any size") {
  testing::check_property(120, [] {
    const testing::RandomTree tree = *testing::random_tree();
    Options options = *random_options().as("options");
    show(options);
    const auto order = *rc::gen::element(0u, 1u, 2u, 3u).as("data order");
    const BuiltTree built = tree.build_in_order(order);
    if (*rc::gen::arbitrary<bool>().as("dedupe")) {
      auto duplicates = find_duplicates(*built.tree, *built.store);
      if (!duplicates) RC_FAIL(duplicates.error().what);
      options.duplicates = std::move(*duplicates);
    }
    const auto image = erofs::plan(built.tree, options);
    if (!image) RC_FAIL(image.error().what);
    ImageDevice device(*image, built.store);
    const auto times = options.inode_times == InodeTimes::build
                           ? erofs::testing::TimesAre::the_volumes
                           : erofs::testing::TimesAre::kept;
    const std::string objections = erofs::testing::differences(device, built, times);
    if (!objections.empty()) RC_FAIL(objections);
  });
}

TEST_CASE("random trees come out of fsck.erofs as they went in") {
  testing::check_property(60, [] {
    testing::RandomTreeOptions trees;
    trees.most_in_a_crowd = 300;
    trees.most_file_bytes = 1 << 18;
    trees.most_sparse_bytes = 1 << 24;
    trees.most_path_bytes = 900;
    const testing::RandomTree tree = *testing::random_tree(trees);
    Options options;
    options.tail_packing = *rc::gen::arbitrary<bool>().as("tails");
    const auto order = *rc::gen::element(0u, 1u, 2u, 3u).as("data order");
    const BuiltTree built = tree.build_in_order(order);
    const auto image = erofs::plan(built.tree, options);
    if (!image) RC_FAIL(image.error().what);
    std::string objections = erofs::testing::objections_of_fsck(*image, built);
    if (!options.tail_packing) {
      objections += testing::objections_to_data_order(**image, *built.tree);
    }
    if (!objections.empty()) RC_FAIL(objections);
  });
}
