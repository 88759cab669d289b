// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

namespace mkvirtfs::cli {

/// Where the program's helper is (`mkvirtfs-reader`, fsgen/helper/helper_process.h): below libexec
/// as it was installed, wherever that was moved, or beside the program as in a build tree. When it
/// is in neither place, the first of them.
std::string reader_path();

/// The same of the first process of a machine (`mkvirtfs-init`, guest-init/).
std::string init_path();

}  // namespace mkvirtfs::cli
