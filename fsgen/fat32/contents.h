// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/fat32/layout.h"
#include "fsgen/fat32/names.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::fat32 {

/// Why an entry of the source is not in the image.
enum class Reason : std::uint8_t {
  symlink,
  symlink_dangling,
  symlink_outside,
  symlink_loop,
  character_device,
  block_device,
  fifo,
  socket,
  not_utf8,
  case_clash,
  too_large,
  directory_full,
};
inline constexpr std::size_t kReasons = 12;
/// In words that follow the path: "is a symlink".
std::string_view words_of(Reason reason) noexcept;

/// What of the tree stands in the image, whatever its size: directories with their entries, names
/// and slots. Differs from the tree in what FAT cannot hold: some entries are left out, hard links
/// are files of their own, and a symlink that is followed is a copy, with all that is below it.
/// Immutable; owns the tree. Any thread may read.
class Contents {
 public:
  /// An entry of a directory of the image.
  struct Item {
    std::uint32_t entry;      ///< its number in the directory of the tree
    std::uint32_t target;     ///< asked by node() and directory()
    std::uint64_t slot : 17;  ///< where its entries begin in the directory
    std::uint64_t tail : 17;  ///< of the short name; 0: none
    std::uint64_t
        clash : 17;  ///< 1 + the item of this directory that it is like but for case; or 0
    std::uint64_t is_directory : 1;
    std::uint64_t attributes : 3;  ///< that patterns give: see AttributeRules

    /// The node whose bytes a file has.
    NodeNo node() const noexcept { return NodeNo{target}; }
    /// Which directory of the image a directory is.
    FatDirectoryNo directory() const noexcept { return FatDirectoryNo{target}; }
  };
  static_assert(sizeof(Item) == 16);

  /// A directory of the image.
  struct FatDirectory {
    DirectoryNo source;     ///< in the tree
    FatDirectoryNo parent;  ///< the root's is its own
    ItemNo first_item;
    std::uint32_t item_count;
    std::uint32_t slot_count;  ///< "." and ".." and the label included
    ItemNo item;               ///< that names it; the root: none
  };

  /// Errors: Errc::does_not_fit, naming the path, the limit and the way out.
  static Result<std::unique_ptr<const Contents>> make(std::shared_ptr<const SourceTree> tree,
                                                      const Options& options);
  Contents(std::shared_ptr<const SourceTree> from, const Options& chosen)
      : tree_(std::move(from)), options_(chosen) {}
  Contents(const Contents&) = delete;
  Contents& operator=(const Contents&) = delete;

  const SourceTree& tree() const noexcept { return *tree_; }
  const Options& options() const noexcept { return options_; }
  /// Upper case; empty: the volume has none.
  const std::string& label() const noexcept { return options_.label; }

  /// By their numbers.
  std::span<const FatDirectory> directories() const noexcept { return directories_; }
  std::span<const Item> items() const noexcept { return items_; }
  const FatDirectory& directory(FatDirectoryNo no) const noexcept {
    return directories_[no.value()];
  }
  const Item& item(ItemNo no) const noexcept { return items_[no.value()]; }
  std::span<const Item> items_of(const FatDirectory& directory) const noexcept {
    return std::span(items_).subspan(directory.first_item.value(), directory.item_count);
  }
  /// Slots before the first item: "." and "..", in the root the label.
  std::uint32_t header_slots(FatDirectoryNo directory) const noexcept {
    return directory != kFatRoot ? 2 : label().empty() ? 0 : 1;
  }
  /// The bytes of a file's item.
  std::uint64_t size_bytes(const Item& item) const noexcept {
    return item.is_directory ? 0 : tree_->node(item.node()).size_bytes;
  }
  /// The node whose time and permissions an item shows.
  const Node& node_of(const Item& item) const noexcept {
    return tree_->node(item.is_directory ? node_of(item.directory()) : item.node());
  }
  NodeNo node_of(FatDirectoryNo no) const noexcept {
    return tree_->directory(directory(no).source).node;
  }
  /// The item of a directory that the source names so.
  std::optional<ItemNo> find(FatDirectoryNo directory, std::string_view name) const noexcept;
  /// The name that the source has, as raw bytes.
  std::string_view raw_name(const FatDirectory& directory, const Item& item) const noexcept;
  LongName name(const FatDirectory& directory, const Item& item) const noexcept;

  /// Paths of the image in names of the source, raw bytes; "" for the root.
  std::string path(FatDirectoryNo directory) const;
  std::string path(FatDirectoryNo directory, std::uint32_t entry) const;

  /// Clusters of all files, and of all directories but the root, by the size of a cluster: 512
  /// bytes << index.
  static constexpr std::size_t kClusterSizes = 8;
  const std::array<std::uint64_t, kClusterSizes>& clusters_without_root() const noexcept {
    return clusters_;
  }

  struct Skipped {
    FatDirectoryNo directory;
    std::uint32_t entry;
    Reason reason;
  };
  std::span<const Skipped> skipped() const noexcept { return skipped_; }
  std::uint64_t skipped_count(Reason reason) const noexcept {
    return skipped_counts_[static_cast<std::size_t>(reason)];
  }
  std::uint64_t mapped_count() const noexcept { return mapped_count_; }
  std::uint64_t followed_count() const noexcept { return followed_count_; }
  /// The options whose patterns no entry matches.
  const std::vector<Setting>& unmatched() const noexcept { return unmatched_; }
  /// Whether the item is a symlink's copy.
  bool is_followed(const FatDirectory& directory, const Item& item) const noexcept;

 private:
  friend class ContentsBuilder;

  void count_clusters();

  std::shared_ptr<const SourceTree> tree_;
  Options options_;
  std::vector<FatDirectory> directories_;
  std::vector<Item> items_;
  std::vector<Skipped> skipped_;
  std::vector<Setting> unmatched_;
  std::array<std::uint64_t, kReasons> skipped_counts_{};
  std::array<std::uint64_t, kClusterSizes> clusters_{};
  std::uint64_t mapped_count_ = 0;
  std::uint64_t followed_count_ = 0;
};

}  // namespace mkvirtfs::fat32
