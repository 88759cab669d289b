// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/compressed.h"
#include "fsgen/stream/decoder.h"
#include "support/mutex.h"

namespace mkvirtfs {

/// A large member of a zip, which is decoded as a whole when it is first read: for its index, and
/// for its checksum. Reads that come meanwhile wait for that.
class DeflateMember final : public ByteSource {
 public:
  DeflateMember(const DecoderInput& input, std::uint64_t size_bytes, std::uint32_t crc32,
                const StreamOptions& options)
      : input_(input), size_bytes_(size_bytes), crc32_(crc32), options_(options) {}

  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override;
  Result<bool> read_at_once(std::uint64_t offset, std::span<std::byte> out) override;
  bool is_at_hand(Range range) override;
  void fetch(Range range) override;
  bool keeps_fetched() override { return true; }
  std::string name() const override { return input_.packed->name(); }

 private:
  /// nullptr while there is none.
  ByteSource* indexed_if_there() const noexcept {
    return indexed_now_.load(std::memory_order_acquire);
  }
  Result<ByteSource*> indexed();

  const DecoderInput input_;
  const std::uint64_t size_bytes_;
  const std::uint32_t crc32_;
  const StreamOptions options_;

  Mutex mutex_;
  std::shared_ptr<ByteSource> indexed_ GUARDED_BY(mutex_);
  std::atomic<ByteSource*> indexed_now_ = nullptr;  // the same, for those without the lock
};

}  // namespace mkvirtfs
