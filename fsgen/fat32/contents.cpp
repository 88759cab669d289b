// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/fat32/contents.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "fsgen/tree/symlink_target.h"

namespace mkvirtfs::fat32 {

std::string_view words_of(Reason reason) noexcept {
  switch (reason) {
    case Reason::symlink:
      return "is a symlink";
    case Reason::symlink_dangling:
      return words_of(LeadsNowhere::dangling);
    case Reason::symlink_outside:
      return words_of(LeadsNowhere::outside);
    case Reason::symlink_loop:
      return words_of(LeadsNowhere::loop);
    case Reason::character_device:
      return "is a character device";
    case Reason::block_device:
      return "is a block device";
    case Reason::fifo:
      return "is a FIFO";
    case Reason::socket:
      return "is a socket";
    case Reason::not_utf8:
      return "has a name that is not UTF-8";
    case Reason::case_clash:
      return "differs only in case from an earlier name";
    case Reason::too_large:
      return "is larger than FAT files can be";
    case Reason::directory_full:
      return "finds its directory full";
  }
  std::unreachable();
}

void Contents::count_clusters() {
  const auto count = [&](std::uint64_t bytes) {
    for (std::size_t i = 0; i < kClusterSizes; ++i) {
      clusters_[i] += (bytes + (std::uint64_t{512} << i) - 1) >> (9 + i);
    }
  };
  for (const Item& item : items_) count(size_bytes(item));
  for (std::size_t d = 1; d < directories_.size(); ++d) {
    count(std::uint64_t{directories_[d].slot_count} * kSlotBytes);
  }
}

std::optional<ItemNo> Contents::find(FatDirectoryNo no, std::string_view name) const noexcept {
  const FatDirectory& here = directory(no);
  const Directory& source = tree_->directory(here.source);
  const Entry* const entry = tree_->find(source, name);
  if (entry == nullptr) return std::nullopt;
  const auto entry_no = static_cast<std::uint32_t>(entry - tree_->entries(source).data());
  const std::span<const Item> items = items_of(here);  // in the order of the tree's entries
  const auto item = std::ranges::lower_bound(items, entry_no, {}, &Item::entry);
  if (item == items.end() || item->entry != entry_no) return std::nullopt;
  return here.first_item + static_cast<std::uint32_t>(item - items.begin());
}

std::string_view Contents::raw_name(const FatDirectory& directory,
                                    const Item& item) const noexcept {
  const Directory& source = tree_->directory(directory.source);
  return tree_->name(source, tree_->entries(source)[item.entry]);
}

LongName Contents::name(const FatDirectory& directory, const Item& item) const noexcept {
  const std::string_view raw = raw_name(directory, item);
  if (item.clash == 0) return long_name(raw);
  return long_name(raw, raw_name(directory, items_of(directory)[item.clash - 1]));
}

std::string Contents::path(FatDirectoryNo no) const {
  std::vector<std::string_view> names;
  for (; no != kFatRoot; no = directory(no).parent) {
    names.push_back(raw_name(directory(directory(no).parent), item(directory(no).item)));
  }
  std::string path;
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    if (!path.empty()) path += '/';
    path += *name;
  }
  return path;
}

std::string Contents::path(FatDirectoryNo no, std::uint32_t entry) const {
  std::string path = this->path(no);
  if (!path.empty()) path += '/';
  const Directory& source = tree_->directory(directory(no).source);
  return path.append(tree_->name(source, tree_->entries(source)[entry]));
}

bool Contents::is_followed(const FatDirectory& directory, const Item& item) const noexcept {
  const Directory& source = tree_->directory(directory.source);
  return tree_->node(tree_->entries(source)[item.entry].node).is_symlink();
}

}  // namespace mkvirtfs::fat32
