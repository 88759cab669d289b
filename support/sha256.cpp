// SPDX-License-Identifier: BSD-3-Clause
#include "support/sha256.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include <cassert>
#include <new>
#include <utility>

namespace mkvirtfs {

struct Sha256::State {
  gnutls_hash_hd_t handle = nullptr;
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  // SHA-256 is always there: the only way to fail is a lack of memory.
  if (gnutls_hash_init(&state_->handle, GNUTLS_DIG_SHA256) != 0) throw std::bad_alloc();
}

Sha256::~Sha256() {
  if (state_->handle != nullptr) gnutls_hash_deinit(state_->handle, nullptr);
}

void Sha256::update(std::span<const std::byte> bytes) {
  [[maybe_unused]] const int status = gnutls_hash(state_->handle, bytes.data(), bytes.size());
  assert(status == 0);
}

std::array<std::byte, 32> Sha256::finish() {
  std::array<std::byte, 32> digest;
  gnutls_hash_deinit(std::exchange(state_->handle, nullptr), digest.data());
  return digest;
}

}  // namespace mkvirtfs
