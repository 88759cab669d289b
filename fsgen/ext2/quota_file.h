// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fsgen/ext2/own_file.h"

namespace mkvirtfs::ext2 {

/// What of a volume belongs to one user, group or project.
struct QuotaUsage {
  std::uint32_t id = 0;
  std::uint64_t bytes = 0;
  std::uint64_t inodes = 0;
};

/// How many bytes the quota file of so many ids has, which are sorted, each once.
std::uint64_t quota_file_bytes(std::span<const std::uint32_t> ids);

/// The quota file (format vfsv1) of usages sorted by id, without limits. `what` is a quota.
std::vector<std::byte> make_quota_file(OwnFile::What what, std::span<const QuotaUsage> usages);

}  // namespace mkvirtfs::ext2
