// SPDX-License-Identifier: BSD-3-Clause
// Random trees: the image must please xorriso, isoinfo and 7z, and be the source again to xorriso
// and to bsdtar.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <tuple>

#include "fsgen/iso9660/plan.h"
#include "fsgen/iso9660/testing/judges.h"
#include "tests/support/data_order.h"
#include "tests/support/property.h"
#include "tests/support/random_tree.h"

using namespace mkvirtfs;
using iso9660::Options;

namespace {

testing::RandomTreeOptions trees() {
  testing::RandomTreeOptions options;
  options.most_in_a_crowd = 300;
  options.most_file_bytes = 1 << 17;
  options.most_sparse_bytes = 1 << 20;
  options.most_path_bytes = 900;
  options.most_symlink_bytes = 800;
  options.xattrs = false;
  return options;
}

/// What others read, too: they know no minor numbers beyond 8 bits as Linux has them.
testing::RandomTreeOptions trees_for_xorriso() {
  testing::RandomTreeOptions options = trees();
  options.devices = false;
  return options;
}

/// bsdtar 3.6 loses relocated directories with long names, as it loses those of genisoimage, and
/// slashes in targets of several records.
testing::RandomTreeOptions trees_for_bsdtar() {
  testing::RandomTreeOptions options = trees_for_xorriso();
  options.most_path_bytes = 500;
  options.most_name_bytes = 100;
  options.most_symlink_bytes = 80;
  return options;
}

rc::Gen<Options> random_options() {
  return rc::gen::map(
      rc::gen::tuple(rc::gen::element(1u, 2u, 3u, 3u),
                     rc::gen::element(iso9660::Joliet::standard, iso9660::Joliet::longer,
                                      iso9660::Joliet::none),
                     rc::gen::arbitrary<bool>(), rc::gen::arbitrary<bool>()),
      [](const auto& drawn) {
        Options options;
        const auto& [level, joliet, keep, pad] = drawn;
        options.level = level;
        options.joliet = joliet;
        if (!keep) options.deep = iso9660::DeepDirectories::relocate;
        options.pad = pad;
        if (pad) options.joliet_characters = iso9660::JolietCharacters::utf16;
        options.label = "RANDOM";
        return options;
      });
}

template <class Judge>
void check_trees(int cases, const testing::RandomTreeOptions& trees, Judge&& judge) {
  testing::check_property(cases, [&] {
    const testing::RandomTree tree = *testing::random_tree(trees);
    const Options options = *random_options().as("options");
    RC_LOG() << fmt::format("level {}, Joliet {}, deep {}\n", options.level,
                            static_cast<int>(options.joliet), static_cast<int>(options.deep));
    const auto order = *rc::gen::element(0u, 1u, 2u, 3u).as("data order");
    const BuiltTree built = tree.build_in_order(order);
    const auto image = iso9660::plan(built.tree, options);
    if (!image) RC_FAIL(image.error().what);
    const std::string objections =
        judge(*image, built) + testing::objections_to_data_order(**image, *built.tree);
    if (!objections.empty()) RC_FAIL(objections);
  });
}

}  // namespace

TEST_CASE("random trees please xorriso, isoinfo and 7z") {
  check_trees(40, trees(), [](const auto& image, const BuiltTree& built) {
    return iso9660::testing::objections(image, built);
  });
}

TEST_CASE("random trees are the source again to xorriso") {
  check_trees(40, trees_for_xorriso(), [](const auto& image, const BuiltTree& built) {
    return iso9660::testing::differences_by_xorriso(image, built);
  });
}

TEST_CASE("random trees come out of bsdtar as they went in") {
  check_trees(40, trees_for_bsdtar(), [](const auto& image, const BuiltTree& built) {
    return iso9660::testing::differences_by_bsdtar(image, built);
  });
}
