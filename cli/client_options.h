// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"
#include "nbd/server/server.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// The options that say which clients are served, what they are offered and how long they may take.
class ClientOptions {
 public:
  void add_to(OptionSet& options, const char* group);

  /// Sets what was given. Errc::usage for what is malformed.
  Result<void> apply(nbd::ServerOptions& options) const;

 private:
  std::string max_connections_;
  std::string timeout_;
  std::string most_names_listed_;
  std::vector<std::string> masked_;
  std::vector<std::string> allow_;
  std::vector<std::string> deny_;
};

}  // namespace mkvirtfs::cli
