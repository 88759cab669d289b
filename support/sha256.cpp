// SPDX-License-Identifier: BSD-3-Clause
#include "support/sha256.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include <cassert>
#include <new>
#include <utility>

namespace mkvirtfs {

template <std::size_t kDigestBytes>
struct Sha2<kDigestBytes>::State {
  static constexpr gnutls_digest_algorithm_t kAlgorithm =
      kDigestBytes == 32 ? GNUTLS_DIG_SHA256 : GNUTLS_DIG_SHA512;
  gnutls_hash_hd_t handle = nullptr;
};

template <std::size_t kDigestBytes>
Sha2<kDigestBytes>::Sha2() : state_(std::make_unique<State>()) {
  // It is always there: the only way to fail is a lack of memory.
  if (gnutls_hash_init(&state_->handle, State::kAlgorithm) != 0) throw std::bad_alloc();
}

template <std::size_t kDigestBytes>
Sha2<kDigestBytes>::~Sha2() {
  if (state_->handle != nullptr) gnutls_hash_deinit(state_->handle, nullptr);
}

template <std::size_t kDigestBytes>
void Sha2<kDigestBytes>::update(std::span<const std::byte> bytes) {
  [[maybe_unused]] const int status = gnutls_hash(state_->handle, bytes.data(), bytes.size());
  assert(status == 0);
}

template <std::size_t kDigestBytes>
std::array<std::byte, kDigestBytes> Sha2<kDigestBytes>::finish() {
  std::array<std::byte, kDigestBytes> digest;
  gnutls_hash_deinit(std::exchange(state_->handle, nullptr), digest.data());
  return digest;
}

template class Sha2<32>;
template class Sha2<64>;

}  // namespace mkvirtfs
