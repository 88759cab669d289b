// SPDX-License-Identifier: BSD-3-Clause
// Bytes are hashed when they continue what is hashed already; other reads pass through. verify()
// reads the rest.
#include "fsgen/stream/verified_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "support/mutex.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kPieceBytes = 1 << 18;

class HashingSource final : public VerifiedSource {
 public:
  HashingSource(std::shared_ptr<ByteSource> below, const Digest& wanted)
      : below_(std::move(below)), wanted_(wanted), hash_(wanted.algorithm) {}

  std::uint64_t size_bytes() const noexcept override { return below_->size_bytes(); }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    Result<void> read = below_->read(offset, out);
    if (read) take(offset, out);
    return read;
  }
  Result<bool> read_at_once(std::uint64_t offset, std::span<std::byte> out) override {
    Result<bool> read = below_->read_at_once(offset, out);
    if (read && *read) take(offset, out);
    return read;
  }
  bool is_at_hand(Range range) override { return below_->is_at_hand(range); }
  void fetch(Range range) override { below_->fetch(range); }
  Result<ContentStore::Pin> pin() override { return below_->pin(); }
  Result<void> recheck(const PinnedFile& file) override { return below_->recheck(file); }
  std::string name() const override { return below_->name(); }

  Result<void> verify() override;

 private:
  /// Hashes what of these bytes comes next.
  void take(std::uint64_t offset, std::span<const std::byte> bytes) {
    if (done_.load(std::memory_order_relaxed)) return;
    const MutexLock lock(mutex_);
    if (done_.load(std::memory_order_relaxed)) return;
    if (offset > hashed_ || bytes.size() <= hashed_ - offset) return;
    bytes = bytes.subspan(static_cast<std::size_t>(hashed_ - offset));
    hash_.update(bytes);
    hashed_ += bytes.size();
  }

  const std::shared_ptr<ByteSource> below_;
  const Digest wanted_;
  std::atomic<bool> done_ = false;
  Mutex mutex_;
  Hasher hash_ GUARDED_BY(mutex_);
  std::uint64_t hashed_ GUARDED_BY(mutex_) = 0;
  std::optional<Digest> found_ GUARDED_BY(mutex_);
};

Result<void> HashingSource::verify() {
  std::vector<std::byte> piece;
  while (!done_.load()) {
    std::uint64_t at = 0;
    {
      const MutexLock lock(mutex_);
      at = hashed_;
      if (at == size_bytes() && !found_) {
        found_ = hash_.finish();
        done_ = true;
      }
    }
    if (at == size_bytes()) break;
    piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kPieceBytes, size_bytes() - at)));
    if (Result<void> good = read(at, piece); !good) return good;
  }
  const MutexLock lock(mutex_);
  if (*found_ == wanted_) return {};
  return fail(Errc::unreadable, fmt::format("{} is damaged: it has the digest {}, not {}", name(),
                                            to_string(*found_), to_string(wanted_)));
}

}  // namespace

std::shared_ptr<VerifiedSource> make_verified(std::shared_ptr<ByteSource> source,
                                              const Digest& wanted) {
  return std::make_shared<HashingSource>(std::move(source), wanted);
}

}  // namespace mkvirtfs
