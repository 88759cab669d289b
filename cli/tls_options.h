// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "cli/command.h"
#include "nbd/server/tls_mode.h"
#include "net/tls_credentials.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// The options that say how clients are told apart and what is kept from others, by nbdkit's names.
class TlsOptions {
 public:
  void add_to(OptionSet& options, const char* group);

  struct Tls {
    nbd::TlsMode mode = nbd::TlsMode::off;
    std::shared_ptr<const net::TlsCredentials> credentials;  ///< null when it is off
  };
  /// Reads the files. Errc::usage for what is malformed or contradictory.
  Result<Tls> load() const;

 private:
  std::string mode_;
  std::string certificates_;
  std::string keys_;
  std::string priority_ = net::kDefaultTlsPriority;
  bool verify_peer_ = false;
};

}  // namespace mkvirtfs::cli
