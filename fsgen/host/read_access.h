// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace mkvirtfs {

/// Whether a file has an ACL.
enum class FileAcl : std::uint8_t { none, possible };

/// Decides by a file's owner and mode whether this process could open it for reading, so that most
/// files cost no system call. A server of a network file system may still refuse; then the read
/// fails when it comes. Made once, of the process's effective ids; immutable.
class ReadAccess {
 public:
  ReadAccess();

  /// True when the permission bits alone allow it. False says only that the kernel must be asked:
  /// privileges may still allow it. An ACL can take away what the group's and the others' bits
  /// allow, so these count only where there is none.
  bool surely(std::uint16_t mode, std::uint32_t uid, std::uint32_t gid, FileAcl acl) const noexcept;

 private:
  uid_t user_;
  std::vector<gid_t> groups_;  // sorted
};

}  // namespace mkvirtfs
