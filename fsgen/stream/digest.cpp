// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/digest.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

#include "support/text.h"

namespace mkvirtfs {
namespace {

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
std::string hex_of(const Digest& digest) {
  return hex(
      {reinterpret_cast<const char*>(digest.bytes.data()), of(digest.algorithm).digest_bytes});
}

std::string_view name_of(DigestAlgorithm algorithm) { return of(algorithm).name; }

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

}  // namespace mkvirtfs
