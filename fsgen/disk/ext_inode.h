// SPDX-License-Identifier: BSD-3-Clause
// Private to this room: it shows types of libext2fs.
#pragma once

#include <ext2fs/ext2fs.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/extent.h"
#include "fsgen/disk/ext_device.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::disk {

/// One inode after the other of a file system. What is wrong with one is an error whose text
/// follows "inode 12: ". One thread.
class ExtInode {
 public:
  ExtInode(ext2_filsys file_system, ExtDevice& device);

  /// All else is about this one from now on.
  Result<void> load(ext2_ino_t number);

  ext2_ino_t number() const noexcept { return number_; }
  /// Where it stands on the disk.
  std::uint64_t offset() const noexcept { return offset_; }
  std::uint16_t mode() const noexcept { return inode().i_mode; }
  std::uint32_t flags() const noexcept { return inode().i_flags; }
  std::uint32_t link_count() const noexcept { return inode().i_links_count; }
  std::uint32_t uid() const noexcept;
  std::uint32_t gid() const noexcept;
  /// nullopt: its nanoseconds are none.
  std::optional<Timestamp> mtime() const noexcept;
  std::uint64_t size_bytes() const noexcept;
  DeviceNumber device() const noexcept;
  bool is_inline() const noexcept { return (flags() & EXT4_INLINE_DATA_FL) != 0; }

  /// Its blocks with data, sorted, inside the file system; not those that read as zeroes.
  Result<std::vector<BlockRun>> runs();
  /// inline: where on the device its bytes lie, up to its size.
  Result<std::vector<Range>> inline_ranges() const;
  Result<std::string> symlink_target();
  /// Names and values as Linux shows them.
  Result<std::vector<std::pair<std::string, std::string>>> xattrs();

 private:
  const ext2_inode_large& inode() const noexcept {
    return *reinterpret_cast<const ext2_inode_large*>(bytes_.data());
  }
  ext2_inode* small() noexcept { return reinterpret_cast<ext2_inode*>(bytes_.data()); }
  bool has_field(std::size_t end) const noexcept;
  Result<void> take_extents(std::vector<BlockRun>& runs);
  Result<void> take_indirect(std::vector<BlockRun>& runs);
  Result<void> add_run(std::vector<BlockRun>& runs, const BlockRun& run) const;
  Result<Range> inline_rest() const;
  std::unexpected<Error> failed(const char* what, errcode_t code) const;

  struct_ext2_filsys* const file_system_;
  ExtDevice& device_;
  const std::uint64_t block_count_;  // of the file system, as far as the disk has them
  ext2_ino_t number_ = 0;
  std::uint64_t offset_ = 0;
  std::vector<std::byte> bytes_;
};

}  // namespace mkvirtfs::disk
