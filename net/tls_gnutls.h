// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gnutls/gnutls.h>
#include <string.h>

#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/tls_credentials.h"

// What the TLS sources share of GnuTLS. Not a public header.

namespace mkvirtfs::net {

/// Bytes that are overwritten before their memory is given back.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::size_t size) : bytes_(size) {}
  Secret(Secret&& other) noexcept { bytes_.swap(other.bytes_); }
  Secret& operator=(Secret&& other) noexcept {
    bytes_.swap(other.bytes_);
    return *this;
  }
  ~Secret() {
    if (!bytes_.empty()) ::explicit_bzero(bytes_.data(), bytes_.size());
  }

  std::span<std::byte> bytes() noexcept { return bytes_; }
  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  std::string_view text() const noexcept {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }

 private:
  std::vector<std::byte> bytes_;
};

struct TlsCredentials::Loaded {
  Loaded() = default;
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;
  ~Loaded();

  bool is_client = false;
  // Each may be null, but for the priority.
  gnutls_certificate_credentials_t certificates = nullptr;
  gnutls_psk_server_credentials_t psk = nullptr;
  gnutls_psk_client_credentials_t client_psk = nullptr;
  gnutls_priority_t priority = nullptr;
  bool verify_peer = false;
  /// Of a client: what the server's certificate must be for; "": any.
  std::string server_name;
  /// By user; the callback of `psk` looks them up. Sessions have this object as their pointer.
  std::map<std::string, Secret, std::less<>> keys;
};

/// GnuTLS's text for an error, without the full stop.
std::string gnutls_text(int error);

}  // namespace mkvirtfs::net
