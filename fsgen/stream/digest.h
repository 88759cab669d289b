// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "support/error.h"
#include "support/sha256.h"

namespace mkvirtfs {

/// The algorithms that the OCI Image Specification registers (descriptor.md).
enum class DigestAlgorithm : std::uint8_t { sha256, sha512 };

/// What blobs of container images are named by: "sha256:" and 64 digits, or "sha512:" and 128.
struct Digest {
  DigestAlgorithm algorithm = DigestAlgorithm::sha256;
  std::array<std::byte, 64> bytes{};  ///< of SHA-256 the first half; the rest is zeroes

  friend bool operator==(const Digest&, const Digest&) = default;
};

/// Errors: Errc::unreadable for what is no digest, Errc::unsupported for other algorithms.
Result<Digest> parse_digest(std::string_view text);
std::string to_string(const Digest& digest);
/// The digits alone.
std::string hex_of(const Digest& digest);
std::string_view name_of(DigestAlgorithm algorithm);

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

}  // namespace mkvirtfs
