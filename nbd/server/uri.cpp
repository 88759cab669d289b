// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/uri.h"

#include <fmt/format.h>

#include <utility>

namespace mkvirtfs::nbd {
namespace {

/// RFC 3986: what needs no encoding in a path or a query, as far as both agree.
std::string percent_encoded(std::string_view text, bool keep_slashes = true) {
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~' || (c == '/' && keep_slashes);
    if (plain) {
      encoded += c;
    } else {
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

}  // namespace

std::string uri_of(const net::ListenAddress& address, std::string_view export_name,
                   const net::TlsCredentials* tls) {
  using Kind = net::ListenAddress::Kind;
  const bool is_unix = address.kind == Kind::unix_socket;
  if (is_unix ? address.path.empty() : address.authority.empty()) return {};
  std::string uri = fmt::format("nbd{}{}://", tls != nullptr ? "s" : "",
                                is_unix                       ? "+unix"
                                : address.kind == Kind::vsock ? "+vsock"
                                                              : "");
  const net::TlsClientFiles files =
      tls != nullptr ? tls->local_client_files() : net::TlsClientFiles();
  if (!files.user.empty()) uri += percent_encoded(files.user, false) + "@";
  uri += fmt::format("{}/{}", address.authority, percent_encoded(export_name));
  char before = '?';
  const auto add = [&](std::string_view name, std::string_view value) {
    if (value.empty()) return;
    uri += fmt::format("{}{}={}", std::exchange(before, '&'), name, percent_encoded(value));
  };
  add("socket", address.path);
  add("tls-certificates", files.certificates_directory);
  add("tls-psk-file", files.psk_file);
  return uri;
}

}  // namespace mkvirtfs::nbd
