// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/extent.h"
#include "block/image.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs {

/// Where the bytes of a file, a directory or a symlink stand in an image.
struct DataPlacement {
  enum class Kind : std::uint8_t {
    absent,    ///< the image does not show it
    no_bytes,  ///< it has none: an empty file, a device
    hole,      ///< all of its bytes are zeroes that are not stored
    embedded,  ///< in its inode or its directory record, not in blocks of its own
    stored,    ///< in blocks of its own
  };
  /// Bytes that stand one behind the other.
  struct Run {
    std::uint64_t data_offset = 0;  ///< of the first one, in the file
    Range range{};                  ///< in the image

    friend bool operator==(const Run&, const Run&) = default;
  };

  Kind kind = Kind::absent;
  /// How many bytes there are, holes included; of a directory, as the format has it.
  std::uint64_t size_bytes = 0;
  /// Sorted, each as long as it can be; between them are holes. What follows up to the end of the
  /// last block belongs to the file, too. Of what is embedded: where its bytes stand verbatim;
  /// none, where the format has them in another form.
  std::vector<Run> runs{};

  /// Where one byte stands; nullopt for a hole, and behind the end.
  std::optional<std::uint64_t> find(std::uint64_t data_offset) const noexcept;
};

/// Names of structures that every format has; see PlannedImage::structure().
namespace structures {
/// What the format leaves to boot code at the image's start. In FAT these are the reserved sectors,
/// which have structures of FAT among them.
inline constexpr std::string_view kBootArea = "boot_area";
/// The file system, without what a given size has left over, and without a tail.
inline constexpr std::string_view kVolume = "volume";
/// What lies behind it.
inline constexpr std::string_view kTail = "tail";
}  // namespace structures

/// The node at a path of the tree, as SourceTree::find_path() takes it.
std::optional<NodeNo> find_node(const SourceTree& tree, std::string_view path) noexcept;

/// An image that says where it has put what: what boot code has to know before it can patch it.
/// All places are bytes of the image.
class PlannedImage : public Image {
 public:
  /// The tree that it shows.
  virtual const SourceTree& tree() const noexcept = 0;

  /// Where the data of a file, a directory or a symlink stands, which is named by its path in the
  /// tree: raw bytes without '/' at either end; "" is the root. Where the format makes several
  /// files of hard links or of a followed symlink, this is the one of that path.
  virtual DataPlacement data_at(std::string_view path) const = 0;
  /// The same by the node's first path.
  DataPlacement data_of(NodeNo node) const { return data_at(tree().path(node)); }

  /// Where a structure of the format stands: "superblock", "fat", "boot_catalogue". `number` says
  /// which one, where there are several: block groups, copies. In pieces, if it must be; empty
  /// when there is none.
  virtual std::vector<Range> structure(std::string_view name, std::uint64_t number = 0) const = 0;
  /// The names that structure() knows, each kept like an API.
  virtual std::span<const std::string_view> structure_names() const noexcept = 0;

  /// The options of the format whose patterns no entry of the image matches.
  virtual std::vector<Setting> unmatched() const { return {}; }

  /// What the format has by default and a given size had no room for: a list in words; empty when
  /// all had.
  virtual std::string gave_way() const { return {}; }
  /// On one line, what the source needs and the format does not have by default, and what that
  /// means to readers; empty when there is nothing.
  virtual std::string switched_on() const { return {}; }
};

}  // namespace mkvirtfs
