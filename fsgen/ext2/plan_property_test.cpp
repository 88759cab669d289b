// SPDX-License-Identifier: BSD-3-Clause
// Random trees, every shape of ext: the image must please e2fsck and be the source again to
// libext2fs.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <string_view>
#include <tuple>

#include "fsgen/ext2/plan.h"
#include "fsgen/ext2/testing/judge.h"
#include "tests/support/data_order.h"
#include "tests/support/property.h"
#include "tests/support/random_tree.h"

using namespace mkvirtfs;
using ext2::Options;
using ext2::Variant;

namespace {

/// Any combination that the variant allows.
rc::Gen<Options> random_options(Variant variant) {
  return rc::gen::map(
      rc::gen::tuple(rc::gen::element(1024u, 2048u, 4096u), rc::gen::element(128u, 256u),
                     rc::gen::arbitrary<bool>(), rc::gen::arbitrary<bool>(),
                     rc::gen::inRange<std::uint64_t>(0, 100u << 20)),
      [variant](const auto& drawn) {
        const auto& [block_bytes, inode_bytes, journal, fewer_features, free_bytes] = drawn;
        Options options;
        options.variant = variant;
        options.block_bytes = block_bytes;
        options.inode_bytes = inode_bytes;
        options.free = FreeBytes{free_bytes};
        if (variant == Variant::ext4) options.journal = journal;
        if (fewer_features) {
          options.features = {"^sparse_super"};
          if (variant == Variant::ext2) options.features.emplace_back("dir_index");
          if (variant == Variant::ext3) options.features.emplace_back("^dir_index");
          if (variant == Variant::ext4) options.features.emplace_back("^metadata_csum");
        }
        return options;
      });
}

void check_variant(Variant variant, int cases) {
  testing::check_property(cases, [variant] {
    const testing::RandomTree tree = *testing::random_tree();
    const Options options = *random_options(variant).as("options");
    RC_LOG() << fmt::format("blocks of {} bytes, inodes of {}, features {}, journal {}\n",
                            options.block_bytes, options.inode_bytes,
                            fmt::join(options.features, ","), options.journal.value_or(false));
    const auto order = *rc::gen::element(0u, 1u, 2u, 3u).as("data order");
    const BuiltTree built = tree.build_in_order(order);
    const auto image = ext2::plan(built.tree, options);
    if (!image) RC_FAIL(image.error().what);
    const std::string objections = ext2::testing::objections(*image, built) +
                                   testing::objections_to_data_order(**image, *built.tree);
    if (!objections.empty()) RC_FAIL(objections);
  });
}

}  // namespace

TEST_CASE("random trees are clean and whole as ext2") { check_variant(Variant::ext2, 100); }
TEST_CASE("random trees are clean and whole as ext3") { check_variant(Variant::ext3, 100); }
TEST_CASE("random trees are clean and whole as ext4") { check_variant(Variant::ext4, 150); }
