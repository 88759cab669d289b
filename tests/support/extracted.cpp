// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/extracted.h"

#include <fmt/format.h>

#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include "block/host_files.h"
#include "fsgen/host/scan.h"
#include "support/log.h"
#include "support/text.h"

namespace mkvirtfs::testing {
namespace {

/// Everything in the tree, by path; hard links have one node.
std::map<std::string, NodeNo> entries_of(const SourceTree& tree) {
  std::map<std::string, NodeNo> entries = {{"", kRootNode}};
  std::vector<std::pair<std::string, std::uint32_t>> pending = {{"", 0}};
  while (!pending.empty()) {
    const auto [path, directory] = pending.back();
    pending.pop_back();
    const Directory& source = tree.directories()[directory];
    for (const Entry entry : tree.entries(source)) {
      const std::string below = path + "/" + std::string(tree.name(source, entry));
      entries.emplace(below, entry.node);
      if (tree.node(entry.node).is_directory()) {
        pending.emplace_back(below, tree.directory_no(entry.node));
      }
    }
  }
  return entries;
}

std::vector<std::byte> bytes_of(ContentStore& store, NodeNo no, std::uint64_t size) {
  std::vector<std::byte> bytes(size);
  const auto read = store.read(content_no(no), 0, bytes);
  if (!read) throw std::runtime_error(read.error().what);
  return bytes;
}

}  // namespace

std::string extracted_differences(const BuiltTree& source, const std::filesystem::path& directory,
                                  HardLinks links, const NodeDifference& difference) {
  ScanOptions options;
  options.entries.xattrs = false;
  const Result<Scan> scan = scan_directory(directory.string(), options, null_log());
  if (!scan) return scan.error().what;
  const SourceTree& tree = *source.tree;
  const auto store =
      make_host_files(scan->files, OnChange::error, null_log(), scan->tree->node_count());
  std::map<std::string, NodeNo> found = entries_of(*scan->tree);
  std::string report;
  std::map<NodeNo, NodeNo> twin;
  std::map<std::string, NodeNo> expected = entries_of(tree);
  expected.erase("");
  found.erase("");
  for (const auto& [path, no] : expected) {
    const auto at = found.find(path);
    if (at == found.end()) {
      report += printable(path) + " is missing\n";
      continue;
    }
    const NodeNo is_no = at->second;
    found.erase(at);
    const Node& want = tree.node(no);
    const Node& is = scan->tree->node(is_no);
    const std::string what = difference(tree, no, *scan->tree, is_no);
    if (!what.empty()) report += printable(path) + ": " + what + "\n";
    if (links == HardLinks::compare && want.is_regular() && want.size_bytes != 0 &&
        twin.emplace(no, is_no).first->second != is_no) {
      report += printable(path) + " is no hard link\n";
    }
    if (want.is_regular() && is.is_regular() && want.size_bytes == is.size_bytes &&
        bytes_of(*source.store, no, want.size_bytes) != bytes_of(*store, is_no, is.size_bytes)) {
      report += printable(path) + " has other bytes\n";
    }
  }
  for (const auto& [path, no] : found) report += printable(path) + " is not in the source\n";
  return report;
}

}  // namespace mkvirtfs::testing
