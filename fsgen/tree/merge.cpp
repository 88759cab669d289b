// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/merge.h"

#include <algorithm>
#include <cassert>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/tree/layer_overrides.h"
#include "fsgen/tree/node_limits.h"
#include "fsgen/tree/stack_view.h"
#include "fsgen/tree/tree_merger.h"
#include "fsgen/tree/tree_path.h"

namespace mkvirtfs {

struct LayerStack::Layers {
  StackView view;
  LayerOverrides overrides;
};

LayerStack::LayerStack() : layers_(std::make_unique<Layers>()) {}
LayerStack::~LayerStack() = default;

Result<void> LayerStack::add(PlacedLayer layer) {
  const LayerNo no = layers_->view.end();
  if (Result<void> good = layers_->view.add(std::move(layer)); !good) return good;
  return layers_->overrides.add(layers_->view, no);
}

void LayerStack::set_root(const AttributeOverride& change) {
  const StackView& view = layers_->view;
  layers_->overrides.set(view.attributes_of(view.root(view.end()).shares), change);
}

Standing LayerStack::look(std::string_view path) const {
  const StackView& view = layers_->view;
  const Result<StackEntry> found = view.find(path, view.end());
  if (!found || !found->exists()) return {};
  if (!found->leaf) return {Standing::Kind::directory, {}};
  const Origin& leaf = *found->leaf;
  if (!view.node_of(leaf).is_symlink()) return {Standing::Kind::other, {}};
  return {Standing::Kind::symlink, view.tree(leaf.layer).symlink_target(leaf.node)};
}

Result<Layer> LayerStack::merge() && {
  StackView& view = layers_->view;
  assert(!view.layers().empty());
  PlacedLayer& first = view.layers().front();
  const bool is_as_it_is = view.layers().size() == 1 && first.at.empty() &&
                           first.layer.outward_links.empty() && first.layer.overrides.empty() &&
                           layers_->overrides.empty();
  if (!is_as_it_is) return TreeMerger(view, layers_->overrides).run();
  Layer same = std::move(first.layer);
  same.whiteouts.clear();
  same.opaque_directories.clear();
  return same;
}

Result<Layer> merge_layers(std::vector<PlacedLayer> layers) {
  LayerStack stack;
  for (PlacedLayer& layer : layers) {
    if (Result<void> good = stack.add(std::move(layer)); !good) return propagate(good);
  }
  return std::move(stack).merge();
}

bool is_valid_place(std::string_view at) {
  const auto names = plain_components_of(at);
  return names && std::ranges::all_of(
                      *names, [](std::string_view name) { return name.size() <= kMostNameBytes; });
}

}  // namespace mkvirtfs
