// SPDX-License-Identifier: BSD-3-Clause
// A list of prefixes decides by the name alone. Values of ACLs are rewritten entry by entry: ids
// by the maps, permissions by the mode mask.
#include "fsgen/tree/xattr_rules.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

#include "support/byte_order.h"

namespace mkvirtfs {
namespace {

constexpr std::string_view kAccessAcl = "system.posix_acl_access";
constexpr std::string_view kDefaultAcl = "system.posix_acl_default";

// linux/posix_acl_xattr.h: a 32-bit version, then entries of tag, permissions (16 bits each) and id
// (32 bits), all little-endian.
constexpr std::uint32_t kAclVersion = 2;
constexpr std::size_t kAclHeaderBytes = 4;
constexpr std::size_t kAclEntryBytes = 8;
constexpr std::size_t kAclPermissionsAt = 2;
constexpr std::size_t kAclIdAt = 4;
enum AclTag : std::uint16_t {
  user_object = 0x01,
  user = 0x02,
  group_object = 0x04,
  group = 0x08,
  mask = 0x10,
  other = 0x20,
};

// linux/integrity.h: EVM_XATTR_PORTABLE_DIGSIG, the first byte of a portable signature.
constexpr char kPortableSignature = 5;

void limit_permissions(std::span<std::byte> entry, unsigned permissions) {
  const unsigned kept = load_le<std::uint16_t>(entry, kAclPermissionsAt) & permissions;
  store_le(entry, kAclPermissionsAt, static_cast<std::uint16_t>(kept));
}

void map_id(std::span<std::byte> entry, const IdMap& ids) {
  store_le(entry, kAclIdAt, ids(load_le<std::uint32_t>(entry, kAclIdAt)));
}

void normalise_acl(std::string& value, const IdMap& uids, const IdMap& gids,
                   std::uint16_t mode_mask) {
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(value));
  // A value that no kernel would have given is not touched: its reader must check it in any case.
  if (bytes.size() < kAclHeaderBytes || load_le<std::uint32_t>(bytes) != kAclVersion ||
      (bytes.size() - kAclHeaderBytes) % kAclEntryBytes != 0) {
    return;
  }
  std::span<std::byte> owning_group;
  std::span<std::byte> mask_entry;
  for (std::size_t at = kAclHeaderBytes; at < bytes.size(); at += kAclEntryBytes) {
    const std::span<std::byte> entry = bytes.subspan(at, kAclEntryBytes);
    switch (load_le<std::uint16_t>(entry)) {
      case AclTag::user_object:
        limit_permissions(entry, (mode_mask >> 6) & 07u);
        break;
      case AclTag::user:
        map_id(entry, uids);
        break;
      case AclTag::group_object:
        owning_group = entry;
        break;
      case AclTag::group:
        map_id(entry, gids);
        break;
      case AclTag::mask:
        mask_entry = entry;
        break;
      case AclTag::other:
        limit_permissions(entry, mode_mask & 07u);
        break;
      default:
        break;
    }
  }
  // The group bits of a mode are the mask of its ACL, or the owning group when there is no mask.
  const std::span<std::byte> group_class = mask_entry.empty() ? owning_group : mask_entry;
  if (!group_class.empty()) limit_permissions(group_class, (mode_mask >> 3) & 07u);
}

}  // namespace

bool XattrRules::is_acl(std::string_view name) noexcept {
  return name == kAccessAcl || name == kDefaultAcl;
}

bool XattrRules::is_linux_name(std::string_view name) noexcept {
  return is_acl(name) || name.starts_with("user.") || name.starts_with("trusted.") ||
         name.starts_with("security.");
}

bool XattrRules::keeps_name(std::string_view name) noexcept {
  if (!is_linux_name(name)) return false;
  if (is_acl(name)) return true;
  const bool trusted = name.starts_with("trusted.");
  const bool user_owned = name.starts_with("user.");
  if (name.starts_with("trusted.SGI_ACL_")) return false;
  if (trusted || user_owned) {
    constexpr std::array<std::string_view, 5> kHostHandles = {
        "overlay.origin", "overlay.impure", "overlay.nlink", "overlay.upper", "overlay.uuid"};
    return std::ranges::find(kHostHandles, name.substr(name.find('.') + 1)) == kHostHandles.end();
  }
  return true;
}

bool XattrRules::normalise(std::string_view name, std::string& value) const {
  if (name == "security.evm") return value.starts_with(kPortableSignature);
  if (name == kAccessAcl) normalise_acl(value, uids_, gids_, mode_mask_);
  if (name == kDefaultAcl) normalise_acl(value, uids_, gids_, 07777);
  return true;
}

}  // namespace mkvirtfs
