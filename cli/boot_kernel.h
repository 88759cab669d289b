// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/private_directory.h"
#include "compose/prepare.h"
#include "support/error.h"
#include "vm/machine.h"

namespace mkvirtfs::cli {

/// The kernel that the user names, and what starts with it: paths in the source.
struct KernelWish {
  std::string kernel;                ///< "": the newest one
  std::vector<std::string> initrds;  ///< none: the one beside the kernel
};

/// Copies a kernel of the source and its initrds, joined, into `directory`, where QEMU finds them.
/// The command line is not set. Errors: Errc::unreadable for what is not there, or is no kernel for
/// x86-64.
Result<vm::DirectKernel> take_kernel(const PreparedImage& image, const KernelWish& wish,
                                     const PrivateDirectory& directory);

}  // namespace mkvirtfs::cli
