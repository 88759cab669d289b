// SPDX-License-Identifier: BSD-3-Clause
// Private to this room: it shows types of libarchive.
#pragma once

#include <archive_entry.h>

#include <cstdint>
#include <string>

namespace mkvirtfs::archive {

/// The POSIX ACLs of an entry as the kernel's xattr calls give them (linux/posix_acl_xattr.h,
/// version 2).
struct AclValues {
  std::string access;            ///< "": nothing beyond the mode
  std::string defaults;          ///< "": none
  std::uint16_t group_bits = 0;  ///< with `access`: the mode's group bits, which are the mask
  std::string unknown_names;  ///< "user bob, group wheel": left out, this host does not know them
};

/// Ids are taken as the archive has them. Where it has names alone (GNU tar writes such) the host
/// is asked for the ids, as extracting would.
AclValues acls_of(::archive_entry* entry);

}  // namespace mkvirtfs::archive
