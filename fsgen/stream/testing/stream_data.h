// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "fsgen/stream/byte_source.h"

namespace mkvirtfs::testing {

/// Bytes in memory, which a test may change. Always at hand.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::string bytes, std::string name = "memory")
      : bytes_(std::move(bytes)), name_(std::move(name)) {}

  std::uint64_t size_bytes() const noexcept override { return bytes_.size(); }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    const auto from = std::as_bytes(std::span(bytes_)).subspan(offset, out.size());
    std::ranges::copy(from, out.begin());
    return {};
  }
  Result<bool> read_at_once(std::uint64_t offset, std::span<std::byte> out) override {
    const Result<void> result = read(offset, out);
    if (!result) return propagate(result);
    return true;
  }
  bool is_at_hand(Range) override { return true; }
  std::string name() const override { return name_; }

  std::string& bytes() noexcept { return bytes_; }

 private:
  std::string bytes_;
  std::string name_;
};

/// Text that compresses about as source code does, with stretches that do not and ones of zeroes.
/// The same for the same seed.
inline std::string some_bytes(std::size_t size, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes;
  bytes.reserve(size + 4096);
  while (bytes.size() < size) {
    const std::uint32_t kind = random() % 16;
    const std::size_t length = 1 + random() % 3000;
    if (kind == 0) {
      for (std::size_t i = 0; i < length; ++i) bytes.push_back(static_cast<char>(random()));
    } else if (kind == 1) {
      bytes.append(length, '\0');
    } else if (kind < 6 && !bytes.empty()) {
      const std::size_t back = 1 + random() % std::min<std::size_t>(bytes.size(), 30'000);
      for (std::size_t i = 0; i < length; ++i) bytes.push_back(bytes[bytes.size() - back]);
    } else {
      constexpr std::string_view kLetters = "etaoin shrdlu(){};,.\n";
      for (std::size_t i = 0; i < length; ++i)
        bytes.push_back(kLetters[random() % kLetters.size()]);
    }
  }
  bytes.resize(size);
  return bytes;
}

}  // namespace mkvirtfs::testing
