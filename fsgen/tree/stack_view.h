// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "fsgen/tree/merge.h"
#include "fsgen/tree/merged_contents.h"
#include "fsgen/tree/source_tree.h"
#include "fsgen/tree/stack_marks.h"
#include "support/error.h"
#include "support/strong_integer.h"

namespace mkvirtfs {

/// A directory of a placed layer: the first numbers are the directories on the way to where the
/// layer is placed, those of its tree follow. So 0 is the root of the whole in every layer.
struct PlacedDirectoryNoTag;
using PlacedDirectoryNo = StrongInteger<PlacedDirectoryNoTag>;

/// A layer's share in a directory of the whole.
struct DirectoryShare {
  LayerNo layer;
  PlacedDirectoryNo directory;
};

/// What one layer has under a name.
struct LayerChild {
  LayerNo layer;
  std::variant<PlacedDirectoryNo, NodeNo, OutwardLinkNo> what;
};

/// A name in a directory of the whole, and what one layer has there.
struct StackRow {
  std::string_view name;
  LayerChild child;
};

/// What stands at a path: a directory made of shares, or one node; or nothing.
struct StackEntry {
  std::optional<Origin> leaf;
  std::vector<DirectoryShare> shares;  ///< the last layer's first, all that make up its attributes

  bool exists() const noexcept { return leaf || !shares.empty(); }
};

/// Layers that are placed one over the other, and what is seen of them. Nothing is merged: a path
/// is looked for in all layers at once, and the last one that has something there decides how much
/// is seen of those before it.
class StackView {
 public:
  /// Takes one more layer, over all that are there. After an error there is nothing more to do with
  /// the view.
  Result<void> add(PlacedLayer placed);

  /// One more than the last layer.
  LayerNo end() const noexcept { return LayerNo{static_cast<std::uint32_t>(placed_.size())}; }
  const std::deque<PlacedLayer>& layers() const noexcept { return placed_; }
  std::deque<PlacedLayer>& layers() noexcept { return placed_; }
  const Layer& layer(LayerNo no) const noexcept { return placed_[no].layer; }
  const SourceTree& tree(LayerNo no) const noexcept { return *layer(no).tree; }
  const StackMarks& marks() const noexcept { return marks_; }
  /// What the outward links are names of.
  std::vector<Origin> linked() const;

  /// A path below the root of the layer, as it stands in the whole.
  std::string placed_path(LayerNo layer, std::string_view path) const;
  /// Errc::unreadable with the layer's name.
  std::unexpected<Error> wrong(LayerNo layer, const std::string& what) const;

  /// Whether it is a directory on the way to where its layer is placed.
  bool is_made(const Origin& origin) const noexcept {
    return origin.node >= tree(origin.layer).node_count();
  }
  const Node& node_of(const Origin& origin) const noexcept {
    return tree(origin.layer).node(origin.node);
  }
  bool is_implied(const DirectoryShare& share) const noexcept;
  /// Of the last layer that says something about the directory, or of the first that needs it.
  Origin attributes_of(std::span<const DirectoryShare> shares) const noexcept;

  /// What stands at a path while only the layers below `limit` are in place.
  Result<StackEntry> find(std::string_view path, LayerNo limit) const;
  StackEntry root(LayerNo limit) const;
  /// All that the shares of a directory have, sorted by name, the last layer's first.
  void list(std::span<const DirectoryShare> shares, MarkNo mark, std::vector<StackRow>& rows) const;
  /// `found` becomes what is seen of the rows of one name: nothing of layers below `lowest`.
  void see(std::span<const StackRow> rows, LayerNo lowest, StackEntry& found) const;
  /// Of a directory's shares those through which something in it is seen.
  std::size_t seen_shares(std::span<const DirectoryShare> shares, MarkNo mark,
                          LayerNo limit) const noexcept;

 private:
  struct Link {
    LayerNo layer;
    std::string path;
    std::string target;
    Origin origin;
  };

  /// The names on the way to where the layer is placed.
  std::span<const std::string_view> way(LayerNo no) const noexcept { return ways_[no]; }
  /// The name on the layer's way that stands in this directory; nullptr for one of its tree.
  const std::string_view* way_from(const DirectoryShare& share) const noexcept {
    const std::size_t at = share.directory;
    return at < way(share.layer).size() ? &way(share.layer)[at] : nullptr;
  }
  static PlacedDirectoryNo next(PlacedDirectoryNo no) noexcept { return PlacedDirectoryNo{no + 1}; }
  /// One that is not on the way.
  const Directory& own_directory(const DirectoryShare& share) const noexcept {
    return tree(share.layer).directories()[share.directory - way(share.layer).size()];
  }
  Origin origin_of(const DirectoryShare& share) const noexcept {
    if (way_from(share) != nullptr) return {share.layer, NodeNo{~share.directory}};
    return {share.layer, own_directory(share).node};
  }
  LayerChild child_of(LayerNo layer, NodeNo no) const noexcept;

  Result<void> place(const PlacedLayer& placed);
  Result<void> mark(LayerNo no);
  Result<void> mark_link(LayerNo no, const OutwardLink& link);
  Result<void> check_way(LayerNo no) const;
  Result<void> find_targets(LayerNo no);
  void add_links(MarkNo mark, std::string_view name, LayerNo limit,
                 std::span<const DirectoryShare> shares, std::vector<StackRow>& rows) const;
  void look_up(std::string_view name, const DirectoryShare& share,
               std::vector<StackRow>& rows) const;

  std::deque<PlacedLayer> placed_;                   // a deque: ways_ point into their strings
  std::vector<std::vector<std::string_view>> ways_;  // by layer: the components of `at`
  StackMarks marks_;
  std::vector<Link> links_;
  std::uint64_t node_limit_ = 1;  // the whole has no more nodes
};

}  // namespace mkvirtfs
