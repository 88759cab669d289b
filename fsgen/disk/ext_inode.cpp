// SPDX-License-Identifier: BSD-3-Clause
// libext2fs reads the inode, its extents or indirect blocks, and its extended attributes, and
// checks their checksums. Numbers that it passes on are checked here. Where inline data lie it does
// not say, so the attribute that holds their rest ("system.data") is looked for in the inode
// itself.
#include "fsgen/disk/ext_inode.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string_view>

#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

constexpr std::uint64_t kMostSymlinkBytes = 4095;
constexpr std::size_t kSmallInodeBytes = 128;
constexpr std::size_t kBlockFieldAt = 40;
constexpr std::uint64_t kBlockFieldBytes = 60;
constexpr std::size_t kXattrEntryBytes = 16;
constexpr unsigned kSystemNameIndex = 7;
constexpr std::string_view kInlineName = "data";
constexpr std::string_view kInlineXattr = "system.data";
constexpr std::uint32_t kMostNanoseconds = 999'999'999;

/// libext2fs leaves ids that mean nothing at 0; the kernel says -1.
void set_undefined_ids(std::string& acl) {
  constexpr std::size_t kHeader = 4;
  constexpr std::size_t kEntry = 8;
  for (std::size_t at = kHeader; at + kEntry <= acl.size(); at += kEntry) {
    const bool has_id = acl[at] == 0x02 || acl[at] == 0x08;
    if (!has_id) acl.replace(at + 4, 4, "\xff\xff\xff\xff");
  }
}

}  // namespace

ExtInode::ExtInode(ext2_filsys file_system, ExtDevice& device)
    : file_system_(file_system),
      device_(device),
      block_count_(std::min<std::uint64_t>(ext2fs_blocks_count(file_system->super),
                                           device.disk().size_bytes() / file_system->blocksize)),
      bytes_(std::max<std::size_t>(EXT2_INODE_SIZE(file_system->super), sizeof(ext2_inode_large))) {
}

std::unexpected<Error> ExtInode::failed(const char* what, errcode_t code) const {
  if (std::optional<Error> error = device_.take_error()) return std::unexpected(std::move(*error));
  return fail(Errc::unreadable, fmt::format("{}: {}", what, ext_message(code)));
}

Result<void> ExtInode::load(ext2_ino_t number) {
  number_ = number;
  const ext2_super_block& super = *file_system_->super;
  const std::uint32_t index = (number - 1) % super.s_inodes_per_group;
  const auto group = static_cast<dgrp_t>((number - 1) / super.s_inodes_per_group);
  const std::uint64_t table =
      group < file_system_->group_desc_count ? ext2fs_inode_table_loc(file_system_, group) : 0;
  const std::uint64_t inode_bytes = EXT2_INODE_SIZE(&super);
  if (table == 0 || table >= block_count_) {
    offset_ = 0;
    return fail(Errc::unreadable, fmt::format("group {} has no inode table", group));
  }
  offset_ = table * file_system_->blocksize + index * inode_bytes;
  std::ranges::fill(bytes_, std::byte{0});
  const errcode_t code =
      ext2fs_read_inode_full(file_system_, number, small(), static_cast<int>(inode_bytes));
  if (code != 0) return failed("cannot be read", code);
  return {};
}

/// Whether the part of an inode behind the first 128 bytes reaches so far.
bool ExtInode::has_field(std::size_t end) const noexcept {
  return EXT2_INODE_SIZE(file_system_->super) > kSmallInodeBytes &&
         end <= kSmallInodeBytes + inode().i_extra_isize;
}

std::uint32_t ExtInode::uid() const noexcept {
  return inode().i_uid | std::uint32_t{inode().osd2.linux2.l_i_uid_high} << 16;
}
std::uint32_t ExtInode::gid() const noexcept {
  return inode().i_gid | std::uint32_t{inode().osd2.linux2.l_i_gid_high} << 16;
}

std::optional<Timestamp> ExtInode::mtime() const noexcept {
  Timestamp time{static_cast<std::int32_t>(inode().i_mtime), 0};
  if (!has_field(offsetof(ext2_inode_large, i_mtime_extra) + 4)) return time;
  const std::uint32_t extra = inode().i_mtime_extra;
  time.seconds += std::int64_t{extra & 3} << 32;
  time.nanoseconds = extra >> 2;
  if (time.nanoseconds > kMostNanoseconds) return std::nullopt;
  return time;
}

std::uint64_t ExtInode::size_bytes() const noexcept {
  const bool has_high = S_ISREG(mode()) || S_ISDIR(mode());
  return inode().i_size | (has_high ? std::uint64_t{inode().i_size_high} << 32 : 0);
}

/// include/linux/kdev_t.h: 8 bits of each in the first word, or 12 and 20 bits in the second.
DeviceNumber ExtInode::device() const noexcept {
  const std::uint32_t old = inode().i_block[0];
  if (old != 0) return {(old >> 8) & 0xff, old & 0xff};
  const std::uint32_t word = inode().i_block[1];
  return {(word & 0xfff00) >> 8, (word & 0xff) | ((word >> 12) & 0xfff00)};
}

Result<void> ExtInode::add_run(std::vector<BlockRun>& runs, const BlockRun& run) const {
  if (run.physical == 0 || run.physical < file_system_->super->s_first_data_block ||
      run.physical >= block_count_ || run.count > block_count_ - run.physical) {
    return fail(Errc::unreadable,
                fmt::format("{} of its blocks from {} on are said to be block {} on, which is "
                            "outside the file system",
                            run.count, run.logical, run.physical));
  }
  const std::uint64_t from = runs.empty() ? 0 : runs.back().logical + runs.back().count;
  if (run.logical < from) {
    return fail(Errc::unreadable, fmt::format("its block {} is mapped twice", run.logical));
  }
  if (!runs.empty() && from == run.logical &&
      runs.back().physical + runs.back().count == run.physical) {
    runs.back().count += run.count;
  } else {
    runs.push_back(run);
  }
  return {};
}

Result<void> ExtInode::take_extents(std::vector<BlockRun>& runs) {
  ext2_extent_handle_t opened = nullptr;
  errcode_t code = ext2fs_extent_open2(file_system_, number_, small(), &opened);
  if (code != 0) return failed("its extent tree", code);
  const std::unique_ptr<ext2_extent_handle, void (*)(ext2_extent_handle_t)> handle(
      opened, ext2fs_extent_free);
  ext2fs_extent extent{};
  for (int operation = EXT2_EXTENT_ROOT;; operation = EXT2_EXTENT_NEXT) {
    code = ext2fs_extent_get(handle.get(), operation, &extent);
    if (code == EXT2_ET_EXTENT_NO_NEXT) return {};
    if (code != 0) return failed("its extent tree", code);
    if ((extent.e_flags & EXT2_EXTENT_FLAGS_LEAF) == 0 ||
        (extent.e_flags & EXT2_EXTENT_FLAGS_SECOND_VISIT) != 0) {
      continue;
    }
    // What was allocated and never written reads as zeroes.
    if ((extent.e_flags & EXT2_EXTENT_FLAGS_UNINIT) != 0 || extent.e_len == 0) continue;
    if (Result<void> good = add_run(runs, {extent.e_lblk, extent.e_pblk, extent.e_len}); !good) {
      return good;
    }
  }
}

Result<void> ExtInode::take_indirect(std::vector<BlockRun>& runs) {
  struct Walk {
    const ExtInode& inode;
    std::vector<BlockRun>& runs;
    std::uint64_t left;
    Result<void> result;
  } walk{*this, runs, block_count_, {}};
  const auto collect = [](ext2_filsys, blk64_t* block, e2_blkcnt_t logical, blk64_t, int,
                          void* state) -> int {
    auto& into = *static_cast<Walk*>(state);
    if (logical < 0) return 0;
    // A loop of indirect blocks would name the same blocks again and again.
    if (into.left-- == 0) {
      into.result = fail(Errc::unreadable, "it has more blocks than the file system");
    } else {
      into.result = into.inode.add_run(into.runs, {static_cast<std::uint64_t>(logical), *block, 1});
    }
    return into.result ? 0 : BLOCK_ABORT;
  };
  const errcode_t code = ext2fs_block_iterate3(
      file_system_, number_, BLOCK_FLAG_DATA_ONLY | BLOCK_FLAG_READ_ONLY, nullptr, collect, &walk);
  if (!walk.result) return walk.result;
  if (code != 0) return failed("its indirect blocks", code);
  return {};
}

Result<std::vector<BlockRun>> ExtInode::runs() {
  std::vector<BlockRun> runs;
  if (Result<void> good =
          (flags() & EXT4_EXTENTS_FL) != 0 ? take_extents(runs) : take_indirect(runs);
      !good) {
    return propagate(good);
  }
  return runs;
}

/// The value of "system.data" in the inode, as a range of the inode.
Result<Range> ExtInode::inline_rest() const {
  const auto wrong = [](const char* what) {
    return fail(Errc::unreadable, fmt::format("its inline data: {}", what));
  };
  const std::span<const std::byte> bytes =
      std::span(bytes_).first(EXT2_INODE_SIZE(file_system_->super));
  if (bytes.size() <= kSmallInodeBytes) return Range{};
  const std::size_t header = kSmallInodeBytes + inode().i_extra_isize;
  if (header + 4 > bytes.size()) return wrong("the inode is too short");
  if (load_le<std::uint32_t>(bytes, header) != EXT2_EXT_ATTR_MAGIC) return Range{};
  const std::size_t first = header + 4;
  for (std::size_t at = first; at + kXattrEntryBytes <= bytes.size();) {
    if (load_le<std::uint32_t>(bytes, at) == 0) break;
    const auto name_bytes = std::to_integer<std::size_t>(bytes[at]);
    const auto index = std::to_integer<unsigned>(bytes[at + 1]);
    if (name_bytes > bytes.size() - at - kXattrEntryBytes) return wrong("a name has no end");
    const std::string_view name(reinterpret_cast<const char*>(bytes.data()) + at + kXattrEntryBytes,
                                name_bytes);
    if (index == kSystemNameIndex && name == kInlineName) {
      const std::uint64_t offset = first + load_le<std::uint16_t>(bytes, at + 2);
      const std::uint64_t length = load_le<std::uint32_t>(bytes, at + 8);
      if (offset > bytes.size() || length > bytes.size() - offset) {
        return wrong("they lie outside the inode");
      }
      return Range{offset, length};
    }
    at += (kXattrEntryBytes + name_bytes + 3) / 4 * 4;
  }
  return Range{};
}

Result<std::vector<Range>> ExtInode::inline_ranges() const {
  const std::uint64_t size = size_bytes();
  std::vector<Range> ranges;
  const std::uint64_t in_field = std::min(size, kBlockFieldBytes);
  if (in_field != 0) ranges.push_back({offset_ + kBlockFieldAt, in_field});
  if (size <= kBlockFieldBytes) return ranges;
  const Result<Range> rest = inline_rest();
  if (!rest) return propagate(rest);
  if (rest->length < size - in_field) {
    return fail(Errc::unreadable, fmt::format("its inline data have {} bytes, and {} in the inode",
                                              size, in_field + rest->length));
  }
  ranges.push_back({offset_ + rest->offset, size - in_field});
  return ranges;
}

Result<std::string> ExtInode::symlink_target() {
  const std::uint64_t size = size_bytes();
  if (size == 0 || size > kMostSymlinkBytes) {
    return fail(Errc::unreadable, fmt::format("it is a symlink with a target of {} bytes", size));
  }
  std::string target(static_cast<std::size_t>(size), '\0');
  const auto out = std::as_writable_bytes(std::span(target));
  std::size_t done = 0;
  if (is_inline()) {
    const Result<std::vector<Range>> ranges = inline_ranges();
    if (!ranges) return propagate(ranges);
    for (const Range& range : *ranges) {
      const auto in = static_cast<std::size_t>(range.offset - offset_);
      const auto part = std::span(bytes_).subspan(in, static_cast<std::size_t>(range.length));
      std::ranges::copy(part, out.subspan(done).begin());
      done += part.size();
    }
  } else if (size < kBlockFieldBytes) {
    std::memcpy(target.data(), inode().i_block, target.size());
  } else {
    const Result<std::vector<BlockRun>> blocks = runs();
    if (!blocks) return propagate(blocks);
    const std::uint64_t block_bytes = file_system_->blocksize;
    for (const BlockRun& run : *blocks) {
      if (run.logical * block_bytes != done || done == target.size()) break;
      const std::size_t length =
          std::min<std::size_t>(target.size() - done, run.count * block_bytes);
      if (Result<void> good = device_.read(run.physical * block_bytes, out.subspan(done, length));
          !good) {
        return propagate(good);
      }
      done += length;
    }
    if (done != target.size()) return fail(Errc::unreadable, "its target has holes");
  }
  if (target.find('\0') != std::string::npos) {
    return fail(Errc::unreadable, "its target has a NUL byte");
  }
  return target;
}

Result<std::vector<std::pair<std::string, std::string>>> ExtInode::xattrs() {
  std::vector<std::pair<std::string, std::string>> found;
  const bool is_small = EXT2_INODE_SIZE(file_system_->super) <= kSmallInodeBytes;
  if (is_small && ext2fs_file_acl_block(file_system_, small()) == 0) return found;
  ext2_xattr_handle* opened = nullptr;
  errcode_t code = ext2fs_xattrs_open(file_system_, number_, &opened);
  if (code != 0) return failed("its extended attributes", code);
  const std::unique_ptr<ext2_xattr_handle, void (*)(ext2_xattr_handle*)> handle(
      opened, [](ext2_xattr_handle* open) { ext2fs_xattrs_close(&open); });
  code = ext2fs_xattrs_read(handle.get());
  if (code != 0) return failed("its extended attributes", code);
  std::vector<std::string> names;
  const auto collect = [](char* name, char*, std::size_t, void* into) {
    static_cast<std::vector<std::string>*>(into)->emplace_back(name);
    return 0;
  };
  code = ext2fs_xattrs_iterate(handle.get(), collect, &names);
  if (code != 0) return failed("its extended attributes", code);
  std::ranges::sort(names);
  names.erase(std::ranges::unique(names).begin(), names.end());
  for (std::string& name : names) {
    if (name == kInlineXattr) continue;
    void* value = nullptr;
    std::size_t length = 0;
    // ext2fs_xattrs_iterate() shows ACLs as they stand on the disk.
    code = ext2fs_xattr_get(handle.get(), name.c_str(), &value, &length);
    if (code != 0) return failed("its extended attributes", code);
    std::string bytes(static_cast<const char*>(value), length);
    ext2fs_free_mem(static_cast<void*>(&value));
    if (name.starts_with("system.posix_acl_")) set_undefined_ids(bytes);
    found.emplace_back(std::move(name), std::move(bytes));
  }
  return found;
}

}  // namespace mkvirtfs::disk
