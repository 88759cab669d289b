// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

namespace mkvirtfs::cli {

/// "mkvirtfs 0.1.0", and below it the libraries it runs with.
std::string version_text();

}  // namespace mkvirtfs::cli
