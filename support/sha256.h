// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

namespace mkvirtfs {

/// SHA-2 (FIPS 180-4) with a digest of so many bytes, by GnuTLS. Not thread-safe; finish() ends its
/// life.
template <std::size_t kDigestBytes>
class Sha2 {
 public:
  Sha2();
  ~Sha2();
  Sha2(const Sha2&) = delete;
  Sha2& operator=(const Sha2&) = delete;

  void update(std::span<const std::byte> bytes);
  std::array<std::byte, kDigestBytes> finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

using Sha256 = Sha2<32>;
using Sha512 = Sha2<64>;
extern template class Sha2<32>;
extern template class Sha2<64>;

}  // namespace mkvirtfs
