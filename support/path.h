// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

namespace mkvirtfs {

/// The directory in which `path` lies: "a/b" -> "a", "b" -> ".", "/b" -> "/".
std::string directory_of(const std::string& path);

}  // namespace mkvirtfs
