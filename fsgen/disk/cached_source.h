// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fsgen/stream/byte_source.h"

namespace mkvirtfs::disk {

/// The lines of another source that were read last, so that metadata which lie close to each other
/// cost one read of it. One thread.
class CachedSource {
 public:
  explicit CachedSource(std::shared_ptr<ByteSource> below) : below_(std::move(below)) {}

  std::uint64_t size_bytes() const noexcept { return below_->size_bytes(); }
  std::string name() const { return below_->name(); }
  bool holds(std::uint64_t offset, std::uint64_t length) const noexcept {
    return offset <= size_bytes() && length <= size_bytes() - offset;
  }
  /// As ByteSource::read().
  Result<void> read(std::uint64_t offset, std::span<std::byte> out);

 private:
  static constexpr std::uint64_t kLineBytes = std::uint64_t{16} << 10;
  static constexpr std::size_t kMostLines = 256;

  struct Line {
    std::vector<std::byte> bytes;
    std::uint64_t last_use = 0;
  };
  Result<const Line*> line(std::uint64_t number);

  const std::shared_ptr<ByteSource> below_;
  std::unordered_map<std::uint64_t, Line> lines_;
  std::uint64_t clock_ = 0;
};

}  // namespace mkvirtfs::disk
