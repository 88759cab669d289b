// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mkvirtfs::vm {

/// Which files of a kernel's modules are loaded, and in which order.
struct ModuleChoice {
  std::vector<std::string> files;    ///< below the directory of the kernel's modules
  std::vector<std::string> missing;  ///< wanted ones that are neither there nor built in
};

/// The modules called `wanted` with all that they need, each behind what it needs. `dependencies`
/// is the text of modules.dep, `built_in` that of modules.builtin.
ModuleChoice choose_modules(std::span<const std::string_view> wanted, std::string_view dependencies,
                            std::string_view built_in);

}  // namespace mkvirtfs::vm
