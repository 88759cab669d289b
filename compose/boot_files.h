// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/joined_contents.h"
#include "compose/read_sources.h"
#include "fsgen/tree/layer.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs {

/// What is added to a tree for booting: files whose bytes are in memory, or those of other files.
class BootFiles {
 public:
  void add(std::string path, std::vector<std::byte> bytes);
  void add(std::string path, std::string_view text);
  /// The bytes of another volume's file. Returns `path`.
  std::string add(std::string path, const ReadSources& from, NodeNo node);
  void add(std::string path, JoinedContent content);
  /// The file of that path that `other` has, if any.
  void add_from(const BootFiles& other, std::string_view path);

  bool empty() const noexcept { return by_path_.empty(); }
  /// All of them over what a tree has. Directories are not changed.
  Layer layer(Timestamp time) const;

 private:
  std::map<std::string, JoinedContent, std::less<>> by_path_;
};

/// A file of a source as a piece. It has bytes.
ContentPiece piece_of(const ReadSources& from, NodeNo node);

/// The node at a path that has these names but for case; nullopt when there is none.
std::optional<NodeNo> find_any_case(const SourceTree& tree, std::string_view path);

/// The path as the tree spells it, as far as it has such names but for case.
std::string spelled_as_in(const SourceTree& tree, std::string_view path);

}  // namespace mkvirtfs
