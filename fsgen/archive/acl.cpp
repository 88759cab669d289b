// SPDX-License-Identifier: BSD-3-Clause
// libarchive has an entry's ACL as a list of entries. They are sorted as the kernel wants them,
// get the mask that setfacl would compute where it is missing, and are packed in the form of the
// xattr calls.
#include "fsgen/archive/acl.h"

#include <archive.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "fsgen/archive/host_ids.h"
#include "support/byte_order.h"

namespace mkvirtfs::archive {
namespace {

constexpr std::uint32_t kAclVersion = 2;
constexpr std::uint32_t kNoId = std::numeric_limits<std::uint32_t>::max();
// The kernel's tags are in the order in which it wants the entries.
enum KernelTag : std::uint16_t {
  user_object = 0x01,
  user = 0x02,
  group_object = 0x04,
  group = 0x08,
  mask = 0x10,
  other = 0x20,
};

struct AclEntry {
  std::uint16_t tag = 0;
  std::uint16_t permissions = 0;
  std::uint32_t id = kNoId;

  std::uint64_t order() const noexcept { return (std::uint64_t{tag} << 32) | id; }
};

std::optional<std::uint16_t> kernel_tag(int tag) {
  switch (tag) {
    case ARCHIVE_ENTRY_ACL_USER_OBJ:
      return KernelTag::user_object;
    case ARCHIVE_ENTRY_ACL_USER:
      return KernelTag::user;
    case ARCHIVE_ENTRY_ACL_GROUP_OBJ:
      return KernelTag::group_object;
    case ARCHIVE_ENTRY_ACL_GROUP:
      return KernelTag::group;
    case ARCHIVE_ENTRY_ACL_MASK:
      return KernelTag::mask;
    case ARCHIVE_ENTRY_ACL_OTHER:
      return KernelTag::other;
    default:
      return std::nullopt;  // of NFSv4, which no image shows
  }
}

std::vector<AclEntry> entries_of(::archive_entry* from, int wanted, std::string& unknown_names) {
  std::vector<AclEntry> entries;
  if (archive_entry_acl_reset(from, wanted) == 0) return entries;
  int type = 0;
  int permissions = 0;
  int tag = 0;
  int id = 0;
  const char* name = nullptr;
  while (archive_entry_acl_next(from, wanted, &type, &permissions, &tag, &id, &name) ==
         ARCHIVE_OK) {
    const std::optional<std::uint16_t> known = kernel_tag(tag);
    if (!known) continue;
    AclEntry entry{*known, static_cast<std::uint16_t>(permissions & 07), kNoId};
    if (*known == KernelTag::user || *known == KernelTag::group) {
      const bool is_group = *known == KernelTag::group;
      std::optional<std::uint32_t> number;
      if (id >= 0) {
        number = static_cast<std::uint32_t>(id);
      } else if (name != nullptr) {
        number = id_of(name, is_group ? IdKind::group : IdKind::user);
      }
      if (!number || *number == kNoId) {
        unknown_names += fmt::format("{}{} {}", unknown_names.empty() ? "" : ", ",
                                     is_group ? "group" : "user", name == nullptr ? "?" : name);
        continue;
      }
      entry.id = *number;
    }
    entries.push_back(entry);
  }
  std::ranges::sort(entries, {}, &AclEntry::order);
  // No tag and id twice: the kernel takes no such list.
  const auto twice = std::ranges::unique(entries, {}, &AclEntry::order);
  entries.erase(twice.begin(), twice.end());
  return entries;
}

bool has(const std::vector<AclEntry>& entries, std::uint16_t tag) {
  return std::ranges::find(entries, tag, &AclEntry::tag) != entries.end();
}

/// A list with named entries needs a mask: what setfacl would compute, all that the group class
/// has.
void complete(std::vector<AclEntry>& entries) {
  if (has(entries, KernelTag::mask)) return;
  if (!has(entries, KernelTag::user) && !has(entries, KernelTag::group)) return;
  AclEntry added{KernelTag::mask, 0, kNoId};
  for (const AclEntry& entry : entries) {
    if (entry.tag == KernelTag::user || entry.tag == KernelTag::group ||
        entry.tag == KernelTag::group_object) {
      added.permissions |= entry.permissions;
    }
  }
  entries.push_back(added);
  std::ranges::sort(entries, {}, &AclEntry::order);
}

bool is_whole(const std::vector<AclEntry>& entries) {
  return has(entries, KernelTag::user_object) && has(entries, KernelTag::group_object) &&
         has(entries, KernelTag::other);
}

std::string value_of(const std::vector<AclEntry>& entries) {
  constexpr std::size_t kHeaderBytes = 4;
  constexpr std::size_t kEntryBytes = 8;
  std::string value(kHeaderBytes + kEntryBytes * entries.size(), '\0');
  const auto bytes = std::as_writable_bytes(std::span(value));
  store_le(bytes, 0, kAclVersion);
  std::size_t at = kHeaderBytes;
  for (const AclEntry& entry : entries) {
    store_le(bytes, at, entry.tag);
    store_le(bytes, at + 2, entry.permissions);
    store_le(bytes, at + 4, entry.id);
    at += kEntryBytes;
  }
  return value;
}

}  // namespace

AclValues acls_of(::archive_entry* entry) {
  AclValues values;
  const int types = archive_entry_acl_types(entry);
  if ((types & ARCHIVE_ENTRY_ACL_TYPE_ACCESS) != 0) {
    std::vector<AclEntry> entries =
        entries_of(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, values.unknown_names);
    complete(entries);
    // Owner, group and others alone are the mode.
    const auto group_class = std::ranges::find(entries, KernelTag::mask, &AclEntry::tag);
    if (group_class != entries.end() && is_whole(entries)) {
      values.access = value_of(entries);
      values.group_bits = static_cast<std::uint16_t>(group_class->permissions << 3);
    }
  }
  if ((types & ARCHIVE_ENTRY_ACL_TYPE_DEFAULT) != 0) {
    std::vector<AclEntry> entries =
        entries_of(entry, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, values.unknown_names);
    complete(entries);
    if (is_whole(entries)) values.defaults = value_of(entries);
  }
  return values;
}

}  // namespace mkvirtfs::archive
