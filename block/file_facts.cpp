// SPDX-License-Identifier: BSD-3-Clause
#include "block/file_facts.h"

#include <sys/stat.h>

namespace mkvirtfs {

FileFacts facts_of(const struct stat& status) noexcept {
  return {status.st_dev,
          status.st_ino,
          static_cast<std::uint64_t>(status.st_size),
          {status.st_mtim.tv_sec, static_cast<std::uint32_t>(status.st_mtim.tv_nsec)},
          {status.st_ctim.tv_sec, static_cast<std::uint32_t>(status.st_ctim.tv_nsec)}};
}

bool is_same_version(const FileFacts& then, const FileFacts& now) noexcept {
  return then.inode == now.inode && then.size_bytes == now.size_bytes && then.mtime == now.mtime &&
         then.ctime == now.ctime;
}

}  // namespace mkvirtfs
