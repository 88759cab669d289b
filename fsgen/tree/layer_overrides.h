// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <map>

#include "fsgen/tree/layer.h"
#include "fsgen/tree/merged_contents.h"
#include "fsgen/tree/source_tree.h"
#include "fsgen/tree/stack_view.h"
#include "support/error.h"

namespace mkvirtfs {

/// What the overrides of all layers make of the nodes that stand at their paths.
class LayerOverrides {
 public:
  /// Of the last layer of the view. Errc::unreadable for a path at which nothing stands, or
  /// something of another type.
  Result<void> add(const StackView& view, LayerNo layer);

  /// What is set in `change` counts from now on.
  void set(const Origin& origin, const AttributeOverride& change);

  bool empty() const noexcept { return changes_.empty(); }
  void apply(const Origin& origin, NewNode& node) const;

 private:
  std::map<Origin, AttributeOverride> changes_;  // only what they change is used
};

}  // namespace mkvirtfs
