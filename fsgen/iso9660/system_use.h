// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "fsgen/iso9660/numbers.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::iso9660 {

/// The system use entries of one directory record (SUSP 1.10, Rock Ridge 1.10 with the inode number
/// of 1.12), and how they are divided between the record and its continuations. Lives on the stack;
/// 10 KiB.
class SystemUse {
 public:
  SystemUse() noexcept {}  // the entries' bytes are written when they are added
  void clear() noexcept { count_ = in_record_ = chunk_count_ = 0; }

  /// SP and ER: what the first record of the root says of the whole volume.
  void add_root_marks() noexcept;
  /// PX: mode, links, owner, and a number that hard links share.
  void add_attributes(const Node& node, std::uint32_t links, std::uint32_t serial) noexcept;
  /// TF: the moment as that of the last change, access and change of attributes.
  void add_times(Timestamp when) noexcept;
  /// NM. Linux gives names of up to 253 bytes: of longer ones it is given the first 253.
  void add_name(std::string_view name) noexcept;
  /// SL: the target component by component.
  void add_target(std::string_view target) noexcept;
  /// PN.
  void add_device(DeviceNumber number) noexcept;
  /// CL: the directory that this record stands for lies at `block`.
  void add_child(BlockNo block) noexcept;
  /// PL: ".." is really the directory at `block`.
  void add_parent(BlockNo block) noexcept;
  /// RE: this record stands here only because the directory must stand somewhere.
  void add_relocated() noexcept;

  std::size_t size_bytes() const noexcept { return ends_[count_]; }

  /// Entries in a continuation area: they never cross a block.
  struct Chunk {
    std::uint64_t at = 0;  ///< in the directory's continuation area, bytes
    std::uint32_t first = 0;
    std::uint32_t count = 0;
    bool last = true;  ///< else it ends with a CE
  };
  /// Divides the entries: what does not fit `capacity` bytes goes to the continuation area, which
  /// is in use up to `area_bytes`. Returns up to where it is afterwards.
  std::uint64_t divide(std::size_t capacity, std::uint64_t area_bytes) noexcept;
  /// What stands in the record itself, CE included.
  std::size_t record_bytes() const noexcept {
    return ends_[in_record_] + (chunk_count_ != 0 ? kContinuationBytes : 0);
  }
  std::span<const Chunk> chunks() const noexcept { return std::span(chunks_).first(chunk_count_); }

  /// `area` is the block at which the continuation area begins.
  void write_record(BlockNo area, std::span<std::byte> out) const noexcept;
  void write_chunk(std::size_t index, BlockNo area, std::span<std::byte> out) const noexcept;

  static constexpr std::size_t kContinuationBytes = 28;
  static constexpr std::size_t kAttributesBytes = 44;
  static constexpr std::size_t kTimesBytes = 26;
  static constexpr std::size_t kNameHeaderBytes = 5;
  static constexpr std::size_t kMostNameBytes = 250;  ///< in one NM

 private:
  // 4095 bytes of target are at most 4096 empty components of 2 bytes.
  static constexpr std::size_t kMostBytes = 9600;
  static constexpr std::size_t kMostEntries = 64;
  static constexpr std::size_t kMostChunks = 6;

  std::span<std::byte> add(std::string_view signature, std::size_t bytes) noexcept;
  std::size_t bytes_of(std::size_t first, std::size_t count) const noexcept {
    return ends_[first + count] - ends_[first];
  }
  static void put_continuation(std::span<std::byte> out, BlockNo area, const Chunk& next,
                               std::size_t bytes) noexcept;
  std::size_t chunk_bytes(const Chunk& chunk) const noexcept {
    return bytes_of(chunk.first, chunk.count) + (chunk.last ? 0 : kContinuationBytes);
  }

  std::array<std::byte, kMostBytes> bytes_;
  std::array<std::uint16_t, kMostEntries + 1> ends_{};  // ends_[n]: where entry n begins
  std::size_t count_ = 0;
  std::size_t in_record_ = 0;
  std::array<Chunk, kMostChunks> chunks_;
  std::size_t chunk_count_ = 0;
};

/// A number in both byte orders, as ECMA-119 (7.3.3) has most of them.
void put_both(std::span<std::byte> out, std::size_t at, std::uint32_t value) noexcept;
void put_both16(std::span<std::byte> out, std::size_t at, std::uint16_t value) noexcept;

}  // namespace mkvirtfs::iso9660
