// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>

namespace mkvirtfs::testing {

/// Whether this process is root, and in no user name space: then it may do everything.
inline bool is_root() {
  if (::geteuid() != 0) return false;
  std::ifstream map("/proc/self/uid_map");
  unsigned long long inside = 1;
  unsigned long long outside = 1;
  unsigned long long count = 0;
  return (map >> inside >> outside >> count) && inside == 0 && outside == 0 && count == 4294967295;
}

/// Notes what a test could not try because of who runs it, once a process: scripts/run-tests counts
/// these lines. For root it is a failure.
inline void skipped(const std::string& what) {
  if (is_root()) throw std::runtime_error("as root nothing is skipped: " + what);
  static std::set<std::string> noted;
  if (!noted.insert(what).second) return;
  std::printf("SKIPPED: %s\n", what.c_str());
  std::fflush(stdout);
}

}  // namespace mkvirtfs::testing
