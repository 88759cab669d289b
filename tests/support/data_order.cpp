// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/data_order.h"

#include <fmt/format.h>

#include <cstdint>
#include <vector>

namespace mkvirtfs::testing {
namespace {

/// The files of content extents as they come, each once: FAT has copies for hard links.
class FilesOf final : public ExtentSink {
 public:
  explicit FilesOf(const SourceTree& tree) : seen_(tree.node_count()) {}

  bool extent(const Extent& extent) override {
    if (extent.kind != ExtentKind::content) return true;
    const auto node = node_no(extent.content);
    if (!seen_[node]) files.push_back(node);
    seen_[node] = true;
    return true;
  }

  std::vector<NodeNo> files;

 private:
  std::vector<bool> seen_;
};

}  // namespace

std::string objections_to_data_order(const Image& image, const SourceTree& tree) {
  FilesOf shown(tree);
  image.map({0, image.size_bytes()}, shown);

  std::vector<NodeNo> wanted;
  const auto want = [&](NodeNo no) {
    Range dense;
    if (tree.node(no).is_regular() && !tree.data_runs(no, dense).empty()) wanted.push_back(no);
  };
  if (tree.data_order().empty()) {
    for (NodeNo no; no < tree.node_count(); ++no) want(no);
  } else {
    for (const NodeNo no : tree.data_order()) want(no);
  }
  if (shown.files == wanted) return "";
  for (std::size_t at = 0; at < shown.files.size() && at < wanted.size(); ++at) {
    if (shown.files[at] == wanted[at]) continue;
    return fmt::format("{} stands where {} should be\n", tree.path(shown.files[at]),
                       tree.path(wanted[at]));
  }
  return fmt::format("data of {} files, not of {}\n", shown.files.size(), wanted.size());
}

}  // namespace mkvirtfs::testing
