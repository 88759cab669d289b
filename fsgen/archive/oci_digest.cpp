// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/oci_digest.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "support/mutex.h"
#include "support/text.h"

namespace mkvirtfs::oci {
namespace {

constexpr std::size_t kPieceBytes = 1 << 18;

struct Algorithm {
  std::string_view name;
  std::size_t digest_bytes;
};
constexpr std::array<Algorithm, 2> kAlgorithms = {{{"sha256", 32}, {"sha512", 64}}};

const Algorithm& of(DigestAlgorithm algorithm) {
  return kAlgorithms[static_cast<std::size_t>(algorithm)];
}

std::optional<unsigned> digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  return std::nullopt;
}

std::string hex_of(const Digest& digest) {
  return hex(
      {reinterpret_cast<const char*>(digest.bytes.data()), of(digest.algorithm).digest_bytes});
}

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

Result<Digest> parse_digest(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    return fail(Errc::unreadable, fmt::format("{} is no digest", text));
  }
  const auto* const known = std::ranges::find(kAlgorithms, text.substr(0, colon), &Algorithm::name);
  if (known == kAlgorithms.end()) {
    return fail(
        Errc::unsupported,
        fmt::format("{}: digests of this kind are not known, only sha256 and sha512", text));
  }
  const std::string_view digits = text.substr(colon + 1);
  Digest digest{static_cast<DigestAlgorithm>(known - kAlgorithms.begin()), {}};
  bool good = digits.size() == 2 * known->digest_bytes;
  for (std::size_t at = 0; good && at < known->digest_bytes; ++at) {
    const auto high = digit(digits[2 * at]);
    const auto low = digit(digits[2 * at + 1]);
    good = high && low;
    if (good) digest.bytes[at] = static_cast<std::byte>(*high << 4 | *low);
  }
  if (!good) {
    return fail(Errc::unreadable, fmt::format("{} is no digest: {} has {} lower-case digits", text,
                                              known->name, 2 * known->digest_bytes));
  }
  return digest;
}

std::string to_string(const Digest& digest) {
  return fmt::format("{}:{}", of(digest.algorithm).name, hex_of(digest));
}
std::string blob_path(const Digest& digest) {
  return fmt::format("blobs/{}/{}", of(digest.algorithm).name, hex_of(digest));
}

Digest digest_of(std::string_view bytes, DigestAlgorithm algorithm) {
  Hasher hash(algorithm);
  hash.update(std::as_bytes(std::span(bytes)));
  return hash.finish();
}

Hasher::Hasher(DigestAlgorithm algorithm) : algorithm_(algorithm) {
  if (algorithm == DigestAlgorithm::sha512) state_.emplace<Sha512>();
}

void Hasher::update(std::span<const std::byte> bytes) {
  std::visit([&](auto& hash) { hash.update(bytes); }, state_);
}

Digest Hasher::finish() {
  Digest digest{algorithm_, {}};
  std::visit([&](auto& hash) { std::ranges::copy(hash.finish(), digest.bytes.begin()); }, state_);
  return digest;
}

std::shared_ptr<VerifiedSource> make_verified(std::shared_ptr<ByteSource> source,
                                              const Digest& wanted) {
  return std::make_shared<HashingSource>(std::move(source), wanted);
}

}  // namespace mkvirtfs::oci
