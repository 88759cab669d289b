// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "cli/private_directory.h"
#include "support/child_process.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// A directory of this host for one machine: virtiofsd runs while this lives.
class SharedDirectory {
 public:
  /// Returns when a machine can connect to `socket`. `directory` has room for its log, and outlives
  /// it. Errors: Errc::unsupported without virtiofsd, and where it does not start, with what it
  /// said.
  static Result<std::unique_ptr<SharedDirectory>> start(const std::string& path,
                                                        const std::string& socket,
                                                        const PrivateDirectory& directory);
  SharedDirectory(const SharedDirectory&) = delete;
  SharedDirectory& operator=(const SharedDirectory&) = delete;

 private:
  SharedDirectory() = default;

  ChildProcess process_;
};

}  // namespace mkvirtfs::cli
