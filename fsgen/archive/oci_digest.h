// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "fsgen/stream/byte_source.h"
#include "support/error.h"
#include "support/sha256.h"

namespace mkvirtfs::oci {

/// The algorithms that are registered (OCI Image Specification, descriptor.md).
enum class DigestAlgorithm : std::uint8_t { sha256, sha512 };

/// What blobs are named by: "sha256:" and 64 digits, or "sha512:" and 128.
struct Digest {
  DigestAlgorithm algorithm = DigestAlgorithm::sha256;
  std::array<std::byte, 64> bytes{};  ///< of SHA-256 the first half; the rest is zeroes

  friend bool operator==(const Digest&, const Digest&) = default;
};

/// Errors: Errc::unreadable for what is no digest, Errc::unsupported for other algorithms.
Result<Digest> parse_digest(std::string_view text);
std::string to_string(const Digest& digest);
/// Where a layout has the blob: "blobs/sha256/...".
std::string blob_path(const Digest& digest);

Digest digest_of(std::string_view bytes, DigestAlgorithm algorithm = DigestAlgorithm::sha256);

/// Hashes with either algorithm; finish() ends its life. For one thread at a time.
class Hasher {
 public:
  explicit Hasher(DigestAlgorithm algorithm);
  void update(std::span<const std::byte> bytes);
  Digest finish();

 private:
  const DigestAlgorithm algorithm_;
  std::variant<Sha256, Sha512> state_;
};

/// The bytes of another source, hashed as they are read from the beginning to the end; what is read
/// again or out of order passes through. Any thread, like all sources.
class VerifiedSource : public ByteSource {
 public:
  /// Hashes what was not read yet, and compares. Errc::unreadable names both digests. What was
  /// found stays.
  virtual Result<void> verify() = 0;
};

std::shared_ptr<VerifiedSource> make_verified(std::shared_ptr<ByteSource> source,
                                              const Digest& wanted);

}  // namespace mkvirtfs::oci
