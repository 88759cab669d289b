// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/host/read_access.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace mkvirtfs {

ReadAccess::ReadAccess() : user_(::geteuid()) {
  const int count = ::getgroups(0, nullptr);
  if (count > 0) {
    groups_.resize(static_cast<std::size_t>(count));
    const int got = ::getgroups(count, groups_.data());
    groups_.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  }
  groups_.push_back(::getegid());
  std::ranges::sort(groups_);
}

bool ReadAccess::surely(std::uint16_t mode, std::uint32_t uid, std::uint32_t gid,
                        FileAcl acl) const noexcept {
  if (uid == user_) return (mode & S_IRUSR) != 0;
  if (acl != FileAcl::none) return false;
  return (mode & (std::ranges::binary_search(groups_, gid) ? S_IRGRP : S_IROTH)) != 0;
}

}  // namespace mkvirtfs
