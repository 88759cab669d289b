// SPDX-License-Identifier: BSD-3-Clause
#include "cli/tls_options.h"

#include <fmt/format.h>

#include <utility>

namespace mkvirtfs::cli {
namespace {

/// A script whose variable is empty must not end up with a server that serves everybody.
std::string not_empty(const std::string& value) {
  return value.empty() ? "it cannot be empty" : "";
}

}  // namespace

void TlsOptions::add_to(OptionSet& options, const char* group) {
  options
      .add_value("--tls", mode_, "MODE",
                 "Encrypt: off, on (for clients that ask), require\n(on if there are certificates "
                 "or keys)")
      .one_of({"off", "on", "require"})
      .group(group);
  options
      .add_value("--tls-certificates", certificates_, "DIR",
                 "server-cert.pem, server-key.pem, ca-cert.pem\nand ca-crl.pem are there")
      .check(not_empty)
      .group(group);
  options.add_value("--tls-psk", keys_, "FILE", "Pre-shared keys, lines of USER:HEXKEY")
      .check(not_empty)
      .group(group);
  options.add_flag("--tls-verify-peer", verify_peer_, "Refuse clients without key or certificate")
      .group(group);
  options.add_value("--tls-priority", priority_, "STRING", "GnuTLS's priority string")
      .check(not_empty)
      .group(group);
}

Result<TlsOptions::Tls> TlsOptions::load() const {
  const bool has_files = !certificates_.empty() || !keys_.empty();
  if (mode_ == "off") return Tls{};
  if (!has_files && !mode_.empty()) {
    return fail(Errc::usage,
                fmt::format("--tls={} needs --tls-certificates=DIR or --tls-psk=FILE", mode_));
  }
  if (verify_peer_ && !has_files) {
    return fail(Errc::usage, "--tls-verify-peer needs --tls-certificates=DIR or --tls-psk=FILE");
  }
  if (!has_files) return Tls{};
  auto credentials = net::TlsCredentials::load({.certificates_directory = certificates_,
                                                .psk_file = keys_,
                                                .verify_peer = verify_peer_,
                                                .priority = priority_});
  if (!credentials) return propagate(credentials);
  return Tls{mode_ == "require" ? nbd::TlsMode::require : nbd::TlsMode::on,
             *std::move(credentials)};
}

}  // namespace mkvirtfs::cli
