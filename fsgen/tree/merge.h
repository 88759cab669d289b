// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/tree/layer.h"
#include "fsgen/tree/layers_below.h"
#include "support/error.h"

namespace mkvirtfs {

/// A layer, and where in the whole its root stands.
struct PlacedLayer {
  Layer layer;
  /// '/'-separated raw bytes; slashes at either end and double ones say nothing. "" is the root.
  std::string at;
  std::string name;  ///< for messages: "rootfs.tar"; may be empty
};

/// Whether it can be a PlacedLayer's `at`: no ".", no "..", no name beyond 255 bytes.
bool is_valid_place(std::string_view at);

/// One layer over nothing, as it would stand on a disk where the given ones were unpacked one after
/// the other, the first one first:
///
/// - A directory over a directory: both's entries; attributes are the later one's, unless it is
///   implied there. Anything else replaces what was there with all below it, and so does a
///   directory that comes over something else.
/// - Whiteouts and opaque directories act on the layers before their own.
/// - An outward link is one more name of what its target is in the layers before its own.
/// - Overrides change what stands at their path when their layer is in place, under all its names.
///   It must be there, unless they are optional, and of the type that they have.
/// - Names of one file stay so; a name that is replaced takes nothing from the others.
/// - Directories on the way to `at` are implied where they are missing: 0755, of 0:0, of 1970.
///
/// Data is in order layer by layer, the first one's first, each as its tree says; when none says
/// anything, neither does the result. Contents keep 8 bytes a node to find the layer's.
///
/// Errors: Errc::usage for an `at` that is no place or has something else than a directory in its
/// way; Errc::unreadable for links, overrides and whiteouts that make no sense, naming their
/// layer and path.
Result<Layer> merge_layers(std::vector<PlacedLayer> layers);

/// The same, layer by layer: the next one can be made by what is there so far. After an error there
/// is nothing more to do with it. Filled by one thread; look() is for any.
class LayerStack final : public LayersBelow {
 public:
  LayerStack();
  LayerStack(const LayerStack&) = delete;
  LayerStack& operator=(const LayerStack&) = delete;
  ~LayerStack();

  Result<void> add(PlacedLayer layer);
  Standing look(std::string_view path) const override;
  /// Changes the root of the whole, whatever the layers say of it; its path is not looked at. All
  /// layers are there.
  void set_root(const AttributeOverride& change);
  /// At least one layer must be there.
  Result<Layer> merge() &&;

 private:
  struct Layers;

  std::unique_ptr<Layers> layers_;
};

}  // namespace mkvirtfs
