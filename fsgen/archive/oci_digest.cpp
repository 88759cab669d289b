// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/oci_digest.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "support/mutex.h"
#include "support/sha256.h"
#include "support/text.h"

namespace mkvirtfs::oci {
namespace {

constexpr std::string_view kSha256 = "sha256:";
constexpr std::size_t kPieceBytes = 1 << 18;

std::optional<unsigned> digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  return std::nullopt;
}

std::string hex_of(const Digest& digest) {
  return hex({reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()});
}

class HashingSource final : public VerifiedSource {
 public:
  HashingSource(std::shared_ptr<ByteSource> below, const Digest& wanted)
      : below_(std::move(below)), wanted_(wanted) {}

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
  Sha256 hash_ GUARDED_BY(mutex_);
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
        found_ = Digest{hash_.finish()};
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

Result<Digest> parse_digest(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    return fail(Errc::unreadable, fmt::format("{} is no digest", text));
  }
  if (!text.starts_with(kSha256)) {
    return fail(Errc::unsupported,
                fmt::format("{}: digests of this kind are not known, only sha256", text));
  }
  const std::string_view digits = text.substr(kSha256.size());
  Digest digest;
  bool good = digits.size() == 2 * digest.bytes.size();
  for (std::size_t at = 0; good && at < digest.bytes.size(); ++at) {
    const auto high = digit(digits[2 * at]);
    const auto low = digit(digits[2 * at + 1]);
    good = high && low;
    if (good) digest.bytes[at] = static_cast<std::byte>(*high << 4 | *low);
  }
  if (!good) {
    return fail(Errc::unreadable,
                fmt::format("{} is no digest: sha256 has 64 lower-case digits", text));
  }
  return digest;
}

std::string to_string(const Digest& digest) { return std::string(kSha256) + hex_of(digest); }
std::string blob_path(const Digest& digest) { return "blobs/sha256/" + hex_of(digest); }

Digest digest_of(std::string_view bytes) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(bytes)));
  return {hash.finish()};
}

std::shared_ptr<VerifiedSource> make_verified(std::shared_ptr<ByteSource> source,
                                              const Digest& wanted) {
  return std::make_shared<HashingSource>(std::move(source), wanted);
}

}  // namespace mkvirtfs::oci
