// SPDX-License-Identifier: BSD-3-Clause
// libext2fs reads through a table of functions, its io_manager. Ours reads bytes of the device, and
// refuses to write. What begins with the journal's magic is escaped in the journal: these four
// bytes are then those of the journal's own first block.
#include "fsgen/disk/ext_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "fsgen/disk/member_list.h"
#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

constexpr std::uint64_t kMagicBytes = 4;

/// The device that is being opened: libext2fs passes nothing but a name to an io_manager.
thread_local ExtDevice* opening = nullptr;

}  // namespace

/// The functions of the io_manager.
struct ExtDevice::IoManager {
  static errcode_t open(const char* name, int /*flags*/, io_channel* made) {
    void* memory = std::calloc(1, sizeof(struct_io_channel));
    if (memory == nullptr) return EXT2_ET_NO_MEMORY;
    auto* const channel = static_cast<io_channel>(memory);
    channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
    channel->manager = &table();
    channel->name = ::strdup(name);
    channel->block_size = 1024;
    channel->refcount = 1;
    channel->private_data = opening;
    *made = channel;
    return 0;
  }
  static errcode_t close(io_channel channel) {
    if (--channel->refcount > 0) return 0;
    std::free(channel->name);
    std::free(channel);
    return 0;
  }
  static errcode_t set_block_size(io_channel channel, int bytes) {
    channel->block_size = bytes;
    return 0;
  }
  static errcode_t read64(io_channel channel, unsigned long long block, int count, void* data) {
    auto& device = *static_cast<ExtDevice*>(channel->private_data);
    // Less than 0: bytes.
    const auto block_bytes = static_cast<std::uint64_t>(channel->block_size);
    const std::uint64_t length = count < 0 ? static_cast<std::uint64_t>(-std::int64_t{count})
                                           : static_cast<std::uint64_t>(count) * block_bytes;
    std::uint64_t offset = 0;
    if (__builtin_mul_overflow(block, block_bytes, &offset) ||
        !device.disk_.holds(offset, length)) {
      return EXT2_ET_SHORT_READ;
    }
    Result<void> good =
        device.read(offset, {static_cast<std::byte*>(data), static_cast<std::size_t>(length)});
    if (good) return 0;
    device.error_ = std::move(good).error();
    return EXT2_ET_SHORT_READ;
  }
  static errcode_t read(io_channel channel, unsigned long block, int count, void* data) {
    return read64(channel, block, count, data);
  }
  static errcode_t refuse_write64(io_channel, unsigned long long, int, const void*) {
    return EXT2_ET_RO_FILSYS;
  }
  static errcode_t refuse_write(io_channel, unsigned long, int, const void*) {
    return EXT2_ET_RO_FILSYS;
  }
  static errcode_t flush(io_channel) { return 0; }
  static struct_io_manager& table() {
    static struct_io_manager made = [] {
      struct_io_manager manager{};
      manager.magic = EXT2_ET_MAGIC_IO_MANAGER;
      manager.name = "mkvirtfs";
      manager.open = open;
      manager.close = close;
      manager.set_blksize = set_block_size;
      manager.read_blk = read;
      manager.read_blk64 = read64;
      manager.write_blk = refuse_write;
      manager.write_blk64 = refuse_write64;
      manager.flush = flush;
      return manager;
    }();
    return made;
  }
};

void ExtDevice::lay_over(JournalMap journal, std::uint32_t block_bytes) {
  journal_ = std::move(journal);
  block_bytes_ = block_bytes;
  magic_at_ = journal_.magic_block() * block_bytes_;
}

Result<void> ExtDevice::read(std::uint64_t offset, std::span<std::byte> out) {
  if (!disk_.holds(offset, out.size())) {
    return fail(Errc::unreadable,
                fmt::format("{}: byte {}: lies behind the end of the disk", disk_.name(), offset));
  }
  if (journal_.empty()) return disk_.read(offset, out);
  std::vector<Range> pieces;
  append_pieces({offset, out.size()}, pieces);
  for (const Range& piece : pieces) {
    if (Result<void> good = disk_.read(piece.offset, out.first(piece.length)); !good) return good;
    out = out.subspan(piece.length);
  }
  return {};
}

void ExtDevice::append_pieces(Range range, std::vector<Range>& pieces) const {
  for (std::uint64_t at = range.offset; at < range.end();) {
    const std::uint64_t block = at / block_bytes_;
    const std::uint64_t next = journal_.next_from(block);
    if (next != block) {
      // Up to the next copied block nothing is in the journal.
      const std::uint64_t end = next <= range.end() / block_bytes_
                                    ? std::min(next * block_bytes_, range.end())
                                    : range.end();
      append_piece(pieces, {at, end - at});
      at = end;
      continue;
    }
    const std::uint64_t end = std::min((block + 1) * block_bytes_, range.end());
    const JournalMap::Copy copy = *journal_.find(block);
    std::uint64_t in = at - block * block_bytes_;
    if (copy.is_escaped && in < kMagicBytes) {
      const std::uint64_t length = std::min(kMagicBytes - in, end - at);
      append_piece(pieces, {magic_at_ + in, length});
      in += length;
      at += length;
    }
    append_piece(pieces, {copy.block * block_bytes_ + in, end - at});
    at = end;
  }
}

errcode_t ExtDevice::open(ext2_filsys* file_system) {
  opening = this;
  const errcode_t code =
      ext2fs_open2("disk", nullptr, EXT2_FLAG_64BITS, 0, 0, &IoManager::table(), file_system);
  opening = nullptr;
  return code;
}

std::optional<Error> ExtDevice::take_error() noexcept { return std::exchange(error_, {}); }

std::string ext_message(errcode_t code) {
  static const bool initialised = [] {
    initialize_ext2_error_table();
    return true;
  }();
  static_cast<void>(initialised);
  return ::error_message(code);
}

}  // namespace mkvirtfs::disk
