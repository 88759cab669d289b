// SPDX-License-Identifier: BSD-3-Clause
// Random trees, every shape of ext: the image must please e2fsck and be the source again to
// libext2fs.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <memory>
#include <string>
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
                     rc::gen::inRange<std::uint64_t>(0, 100u << 20),
                     rc::gen::element<std::string>("", "quota", "project", "orphan_file",
                                                   "^flex_bg", "^extent")),
      [variant](const auto& drawn) {
        const auto& [block_bytes, inode_bytes, journal, fewer_features, free_bytes, switched] =
            drawn;
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
        if (variant == Variant::ext4 && !switched.empty()) {
          options.features.push_back(switched);
          if (switched == "^extent") options.features.emplace_back("^64bit");
          if (switched == "orphan_file") options.journal = true;
          if (switched == "project") {
            options.features.emplace_back("quota");
            options.inode_bytes = 256;
          }
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

/// The smallest size that 0.1.0 took, which its refusal names.
std::uint64_t smallest_size_of_0_1(const std::shared_ptr<const SourceTree>& tree, Options options) {
  options.defaults = Defaults::v0_1;
  options.free.reset();
  options.size_bytes = 32 << 10;
  const auto refused = ext2::plan(tree, options);
  if (refused) return *options.size_bytes;
  const std::string_view before = "the smallest size that fits is ";
  const std::size_t at = refused.error().what.find(before);
  if (at == std::string::npos) RC_FAIL(refused.error().what);
  return std::stoull(refused.error().what.substr(at + before.size()));
}

}  // namespace

TEST_CASE("a size that 0.1.0 took is not too small for what came to the defaults since") {
  for (const Variant variant : {Variant::ext2, Variant::ext3, Variant::ext4}) {
    testing::check_property(60, [variant] {
      const testing::RandomTree tree = *testing::random_tree();
      Options options = *random_options(variant).as("options");
      if (variant == Variant::ext4 && options.journal == false) options.journal.reset();
      const BuiltTree built = tree.build();
      const std::uint64_t least = smallest_size_of_0_1(built.tree, options);
      options.free.reset();
      const auto more =
          *rc::gen::element(0ull, 4096ull, 70'000ull, 1ull << 20, 20ull << 20, 200ull << 20)
               .as("bytes more");
      options.size_bytes = least + more;
      const auto image = ext2::plan(built.tree, options);
      if (!image) RC_FAIL(image.error().what);
      RC_ASSERT((*image)->size_bytes() == *options.size_bytes);
      const std::string objections = ext2::testing::objections(*image, built);
      if (!objections.empty()) RC_FAIL(objections);
    });
  }
}

TEST_CASE("random trees are clean and whole as ext2") { check_variant(Variant::ext2, 100); }
TEST_CASE("random trees are clean and whole as ext3") { check_variant(Variant::ext3, 100); }
TEST_CASE("random trees are clean and whole as ext4") { check_variant(Variant::ext4, 150); }
