// SPDX-License-Identifier: BSD-3-Clause
#include "support/path.h"

namespace mkvirtfs {

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace mkvirtfs
