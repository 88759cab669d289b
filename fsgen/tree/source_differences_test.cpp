// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/source_differences.h"

#include <fmt/format.h>
#include <catch2/catch.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "fsgen/tree/merge.h"
#include "fsgen/tree/tree_builder.h"

namespace mkvirtfs {
namespace {

struct Lines final : DifferenceSink {
  explicit Lines(std::size_t most_lines = SIZE_MAX) : most(most_lines) {}
  bool difference(const Difference& difference) override {
    text += fmt::format("{} {} {}\n", difference.kind, difference.path, difference.what);
    return --most != 0;
  }
  std::string text;
  std::size_t most;
};

BuiltTree flagged() {
  return TreeBuilder{}
      .directory("d")
      .unshown(unshown::kNoDump)
      .file("d/both", "x")
      .unshown(unshown::kImmutable | unshown::kAppendOnly)
      .lost_xattrs("com.apple.quarantine")
      .file("plain", "y")
      .build();
}

constexpr std::string_view kListed =
    "dropped d loses its chattr flags: no dump (d)\n"
    "dropped d/both loses its chattr flags: immutable (i), append only (a)\n"
    "dropped d/both loses its extended attributes: com.apple.quarantine\n";

}  // namespace

TEST_CASE("what no image can show of a tree is counted and listed, and not part of its id") {
  const BuiltTree built = flagged();
  CHECK(source_remark(*built.tree) ==
        "dropped: chattr flags of 2 entries, extended attributes that Linux has no name for, of 1 "
        "entry");
  Lines lines;
  CHECK(list_source_differences(*built.tree, lines));
  CHECK(lines.text == kListed);
  Lines one(1);
  CHECK_FALSE(list_source_differences(*built.tree, one));

  const BuiltTree same =
      TreeBuilder{}.directory("d").file("d/both", "x").file("plain", "y").build();
  CHECK(source_remark(*same.tree).empty());
  CHECK(same.tree->id() == built.tree->id());
}

TEST_CASE("layers keep what they lose") {
  const BuiltTree low = flagged();
  const BuiltTree high = TreeBuilder{}.file("plain", "z").unshown(unshown::kCompressed).build();
  const Result<Layer> merged = merge_layers({{{.tree = low.tree,
                                               .contents = low.store,
                                               .implied_directories = {},
                                               .whiteouts = {},
                                               .opaque_directories = {},
                                               .outward_links = {},
                                               .overrides = {}},
                                              "",
                                              "low"},
                                             {{.tree = high.tree,
                                               .contents = high.store,
                                               .implied_directories = {},
                                               .whiteouts = {},
                                               .opaque_directories = {},
                                               .outward_links = {},
                                               .overrides = {}},
                                              "",
                                              "high"}});
  REQUIRE(merged);
  Lines lines;
  CHECK(list_source_differences(*merged->tree, lines));
  CHECK(lines.text ==
        "dropped d loses its chattr flags: no dump (d)\n"
        "dropped plain loses its chattr flags: compressed (c)\n" +
            std::string(kListed.substr(kListed.find("dropped d/both"))));
}

}  // namespace mkvirtfs
