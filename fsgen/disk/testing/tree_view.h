// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/archive/archive.h"
#include "fsgen/disk/read_disk.h"
#include "fsgen/stream/file_source.h"
#include "fsgen/tree/tree_builder.h"
#include "support/text.h"
#include "tests/support/collected_log.h"
#include "tests/support/foreign_tools.h"

namespace mkvirtfs::disk::testing {

/// An image that was read back.
struct ReadBack {
  ReadDisk disk;
  Layer layer;
  std::string log;
};

inline ReadBack read_back(const std::filesystem::path& image) {
  const auto source = open_file_source(image.string(), OnChange::error, null_log());
  if (!source) throw std::runtime_error(source.error().what);
  const auto format = detect(**source);
  if (!format) throw std::runtime_error(format.error().what);
  if (!*format) throw std::runtime_error("no known file system");
  mkvirtfs::testing::CollectedLog log;
  auto read = read_disk_here(*source, **format, {}, log);
  if (!read) throw std::runtime_error(read.error().what);
  archive::Archive archive;
  archive.name = (*source)->name();
  archive.members = read->members;
  archive.stream = *source;
  if (const auto good = archive::check_places(archive, {}); !good) {
    throw std::runtime_error(good.error().what);
  }
  auto made = archive::make_layer(archive, {}, {}, log);
  if (!made) throw std::runtime_error(made.error().what);
  return {std::move(*read), std::move(made->layer), log.text()};
}

/// The bytes of a file.
inline std::string bytes_of(const ReadBack& back, std::string_view path) {
  const Node* node = back.layer.tree->find_path(path);
  REQUIRE(node != nullptr);
  std::string bytes(node->size_bytes, '\0');
  const auto read = back.layer.contents->read(content_no(back.layer.tree->number_of(*node)), 0,
                                              std::as_writable_bytes(std::span(bytes)));
  if (!read) FAIL(read.error().what);
  return bytes;
}

/// Runs a program that must succeed.
inline void must_run(const std::vector<std::string>& words) {
  const Ran ran = run_tool(words);
  INFO(ran.output);
  REQUIRE(ran.status == 0);
}

/// What is seen of a node, for comparison.
struct Seen {
  std::string attributes;
  NodeNo node;
};
/// Gives what is expected of a node, or leaves it out: an empty text.
using View = std::function<std::string(const SourceTree&, NodeNo)>;

inline std::string all_attributes(const SourceTree& tree, NodeNo no) {
  const Node& node = tree.node(no);
  std::string text = fmt::format("{:06o} {}:{} {}.{:09} {}", node.mode, node.uid, node.gid,
                                 node.mtime_s, node.mtime_ns, node.size_bytes);
  if (node.is_symlink()) text += fmt::format(" -> {}", printable(tree.symlink_target(no)));
  if (node.is_device()) {
    text += fmt::format(" {}:{}", tree.device_number(no).major, tree.device_number(no).minor);
  }
  if (!node.is_directory()) text += fmt::format(" links {}", node.link_count);
  for (const Xattr& xattr : tree.xattrs(node.xattrs)) {
    text += fmt::format(" {}={}", printable(xattr.name), hex(xattr.value));
  }
  return text;
}

inline std::map<std::string, Seen> view_of(const SourceTree& tree, const View& view) {
  std::map<std::string, Seen> seen;
  for (const Directory& directory : tree.directories()) {
    const std::string above = tree.path(directory.node);
    if (directory.node == kRootNode) seen["."] = {view(tree, kRootNode), kRootNode};
    for (const Entry entry : tree.entries(directory)) {
      const std::string name(tree.name(directory, entry));
      const std::string text = view(tree, entry.node);
      if (!text.empty()) seen[above.empty() ? name : above + "/" + name] = {text, entry.node};
    }
  }
  return seen;
}

/// Compares all data of a file, and the beginning of each of its holes.
inline std::string content_difference(const Layer& found, NodeNo in_found, const BuiltTree& source,
                                      NodeNo in_source) {
  Range dense;
  std::vector<Range> ranges;
  std::uint64_t at = 0;
  for (const Range& run : source.tree->data_runs(in_source, dense)) {
    if (run.offset > at) ranges.push_back({at, std::min<std::uint64_t>(run.offset - at, 65536)});
    ranges.push_back(run);
    at = run.end();
  }
  const std::uint64_t size = source.tree->node(in_source).size_bytes;
  if (at < size) ranges.push_back({at, std::min<std::uint64_t>(size - at, 65536)});
  std::vector<std::byte> one;
  std::vector<std::byte> other;
  for (const Range& range : ranges) {
    for (std::uint64_t done = 0; done < range.length; done += one.size()) {
      one.resize(std::min<std::uint64_t>(range.length - done, 1 << 20));
      other.resize(one.size());
      const std::uint64_t offset = range.offset + done;
      const auto first = found.contents->read(content_no(in_found), offset, one);
      if (!first) return first.error().what;
      const auto second = source.store->read(content_no(in_source), offset, other);
      if (!second) return second.error().what;
      if (one != other) return fmt::format("other bytes from {} on", offset);
    }
  }
  return {};
}

/// What the image shows otherwise than `view` of the source; empty when all is the same. What only
/// the image has is passed over when `is_added` says so.
inline std::string differences(const ReadBack& back, const BuiltTree& source, const View& view,
                               const View& view_back,
                               const std::function<bool(const std::string&)>& is_added) {
  std::string text;
  auto expected = view_of(*source.tree, view);
  auto found = view_of(*back.layer.tree, view_back);
  for (const auto& [path, seen] : expected) {
    const auto at = found.find(path);
    if (at == found.end()) {
      text += fmt::format("{} is missing\n", printable(path));
      continue;
    }
    if (at->second.attributes != seen.attributes) {
      text += fmt::format("{}\n  expected {}\n  found    {}\n", printable(path), seen.attributes,
                          at->second.attributes);
    } else if (source.tree->node(seen.node).is_regular()) {
      const std::string content =
          content_difference(back.layer, at->second.node, source, seen.node);
      if (!content.empty()) text += fmt::format("{}: {}\n", printable(path), content);
    }
  }
  for (const auto& [path, seen] : found) {
    if (!expected.contains(path) && !is_added(path)) {
      text += fmt::format("{} is new: {}\n", printable(path), seen.attributes);
    }
  }
  if (back.disk.problem_count != 0) text += back.disk.first_problem + "\n";
  return text;
}

}  // namespace mkvirtfs::disk::testing
