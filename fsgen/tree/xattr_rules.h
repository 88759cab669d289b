// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fsgen/tree/id_map.h"

namespace mkvirtfs {

/// Which extended attributes of a host an image takes over, and in what form.
///
/// Kept: user.*, trusted.*, security.*, and POSIX ACLs (system.posix_acl_access and _default).
/// Everything else is another file system's own way to show what its files are (system.nfs4_acl,
/// btrfs.*, ceph.*, ...). Of the kept name spaces these are dropped, as they speak of the host and
/// would lie in an image:
/// - trusted.SGI_ACL_*: XFS shows each POSIX ACL a second time under these names;
/// - {trusted,user}.overlay.{origin,impure,nlink,upper,uuid}: overlayfs's handles of host inodes
///   (its whiteouts, opaque marks and redirects mean the same anywhere and stay);
/// - security.evm, unless it is a portable signature: an HMAC over the host's inode number.
///
/// Immutable: any thread.
class XattrRules {
 public:
  XattrRules(IdMap uids, IdMap gids, std::uint16_t mode_mask)
      : uids_(std::move(uids)), gids_(std::move(gids)), mode_mask_(mode_mask) {}

  /// By the name alone, before the value is read.
  static bool keeps_name(std::string_view name) noexcept;
  /// Whether a Linux file system could have it at all. In an archive, what it could not is lost and
  /// listed; a host shows such names for what is its own.
  static bool is_linux_name(std::string_view name) noexcept;
  static bool is_acl(std::string_view name) noexcept;

  /// Makes the value fit for the image; false when the attribute is to be dropped after all. ACLs
  /// stay in the form of the kernel's xattr calls (linux/posix_acl_xattr.h, version 2), with the
  /// named ids mapped and, in the access ACL, the permissions of the owner, the group class and the
  /// others under the mode mask, as chmod(2) would have done.
  bool normalise(std::string_view name, std::string& value) const;

 private:
  IdMap uids_;
  IdMap gids_;
  std::uint16_t mode_mask_;
};

}  // namespace mkvirtfs
