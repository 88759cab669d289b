// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fsgen/tree/layer.h"
#include "fsgen/tree/layer_overrides.h"
#include "fsgen/tree/merged_contents.h"
#include "fsgen/tree/source_tree.h"
#include "fsgen/tree/stack_view.h"

namespace mkvirtfs {

/// Makes one tree of all that is seen of a stack of layers. Runs once.
class TreeMerger {
 public:
  TreeMerger(const StackView& view, const LayerOverrides& overrides);

  Layer run() &&;

 private:
  /// A directory of the result that is still to be filled.
  struct Pending {
    std::vector<DirectoryShare> shares;  ///< through which something is seen
    MarkNo mark;
  };

  NewNode new_node(const Origin& origin) const;
  std::vector<Xattr> xattrs_of(const Origin& origin) const;
  void reserve();
  void take_directory(NodeNo no, MarkNo mark);
  void fill(const Pending& directory);
  void add_leaf(std::string_view name, const Origin& origin);
  NodeNo add_new(std::string_view name, const Origin& origin);
  void set_data_order();
  Layer result() &&;

  static constexpr NodeNo kNoNode{std::numeric_limits<std::uint32_t>::max()};
  static constexpr XattrSetNo kNoSet = std::numeric_limits<XattrSetNo>::max();

  const StackView& view_;
  const LayerOverrides& overrides_;
  const Origin root_;
  TreeAssembler assembler_;
  std::deque<Pending> pending_;  // in the order of the directories' numbers
  std::vector<StackRow> rows_;   // of the directory that is being filled
  StackEntry found_;             // of the name that is being looked at
  // The nodes that have several names, or may have; the number in the result once it is known.
  std::unordered_map<Origin, NodeNo, OriginHash> shared_;
  const bool has_links_;
  std::vector<std::vector<XattrSetNo>> set_numbers_;  // by layer and set: the result's
  std::vector<Origin> origins_;                       // by node of the result
  std::vector<NodeNo> implied_;
};

}  // namespace mkvirtfs
