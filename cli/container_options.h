// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string>

#include "cli/command.h"
#include "fsgen/oci/document.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// The options that say how container images are read.
class ContainerOptions {
 public:
  void add_to(OptionSet& options);

  /// What was asked for; Errc::usage when malformed.
  Result<std::optional<oci::Platform>> platform() const;
  /// Whether layers that are not compressed are read for their digests alone.
  bool verify_direct() const noexcept { return !no_verify_; }

 private:
  std::string platform_;
  bool no_verify_ = false;
};

}  // namespace mkvirtfs::cli
