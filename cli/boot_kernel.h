// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/private_directory.h"
#include "compose/prepare.h"
#include "support/error.h"
#include "support/log.h"
#include "vm/initrd.h"
#include "vm/machine.h"

namespace mkvirtfs::cli {

/// The kernel that the user names, and what starts with it.
struct KernelWish {
  /// A path in the source, or else of this host; "": the newest one of the source, or else of this
  /// host.
  std::string kernel;
  std::vector<std::string> initrds;  ///< paths in the source; none: the one beside the kernel
  /// Our own initrd, whatever the source has.
  bool wants_own_initrd = false;
};

struct BootKernel {
  vm::DirectKernel direct;  ///< without a command line
  /// Set where there is to be an initrd of ours: the kernel's modules.
  std::optional<vm::KernelModules> modules;
};

/// Copies a kernel and its initrds, joined, into `directory`, where QEMU finds them. `image` and
/// `log` outlive the modules. Errors: Errc::unreadable for what is not there, or is no kernel for
/// x86-64; Errc::unsupported where there is no kernel.
Result<BootKernel> take_kernel(const PreparedImage& image, const KernelWish& wish,
                               const PrivateDirectory& directory, LogSink& log);

}  // namespace mkvirtfs::cli
