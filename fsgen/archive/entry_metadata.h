// SPDX-License-Identifier: BSD-3-Clause
// Private to this room: it shows types of libarchive.
#pragma once

#include <string>

#include "fsgen/archive/acl.h"
#include "fsgen/archive/archive_handle.h"
#include "fsgen/archive/member_log.h"
#include "fsgen/archive/member_messages.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/archive/tar_headers.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// Takes what libarchive reports of an entry, all but where its bytes lie, over into a Member,
/// whose texts are in here until the next entry. The calls come in this order.
class EntryMetadata {
 public:
  EntryMetadata(Member& member, MemberMessages& messages, PaxGlobals globals)
      : member_(member), messages_(messages), tar_headers_(globals) {}

  Result<void> take_name(const ArchiveHandle& handle);
  /// Whether it is what ar keeps for itself: indexes of symbols, names that are too long for its
  /// headers.
  bool is_of_the_format(const ArchiveHandle& handle) const;
  /// The type, and the target of a link.
  Result<void> take_type(const ArchiveHandle& handle);
  /// Everything else.
  Result<void> take_attributes(ArchiveHandle& handle, MemberBudget& budget);

 private:
  Result<void> take_tar_headers(ArchiveHandle& handle);
  Result<void> take_owner(::archive_entry* entry);
  void take_mtime(::archive_entry* entry);
  Result<void> take_size(::archive_entry* entry, MemberBudget& budget);
  void take_xattrs(::archive_entry* entry);
  Result<void> take_holes(::archive_entry* entry);

  Member& member_;
  MemberMessages& messages_;
  std::string path_;
  std::string target_;
  AclValues acls_;
  TarHeaders tar_headers_;
};

}  // namespace mkvirtfs::archive
