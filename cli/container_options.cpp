// SPDX-License-Identifier: BSD-3-Clause
#include "cli/container_options.h"

#include <utility>

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Container images";

}  // namespace

void ContainerOptions::add_to(OptionSet& options) {
  options
      .add_value("--platform", platform_, "OS/ARCH[/VARIANT]",
                 "Which of an index (default: this host's)")
      .group(kGroup);
  options
      .add_flag("--no-verify", no_verify_,
                "Believe layers that are not compressed, and\ndo not read them for their digests")
      .group(kGroup);
}

Result<std::optional<oci::Platform>> ContainerOptions::platform() const {
  if (platform_.empty()) return std::nullopt;
  Result<oci::Platform> parsed = oci::parse_platform(platform_);
  if (!parsed) {
    return fail(Errc::usage, "--platform=" + platform_ + ": " + parsed.error().what);
  }
  return std::optional(std::move(*parsed));
}

}  // namespace mkvirtfs::cli
