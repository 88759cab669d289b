// SPDX-License-Identifier: BSD-3-Clause
// Private to this room: it shows types of libarchive.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "block/extent.h"
#include "fsgen/archive/archive_handle.h"
#include "fsgen/archive/iso_directory.h"
#include "fsgen/archive/member_log.h"
#include "fsgen/archive/member_messages.h"
#include "fsgen/archive/members_sink.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/archive/zip_directory.h"
#include "fsgen/stream/byte_source.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// Finds where the bytes of members lie in the archive, so that they can be read there.
class StoredBytes {
 public:
  /// `source` is the archive; none for one that comes forwards.
  StoredBytes(Member& member, const MemberMessages& messages, std::shared_ptr<ByteSource> source,
              const ReadLimits& limits)
      : member_(member), messages_(messages), source_(std::move(source)), limits_(limits) {}

  /// Before the first entry: reads the directories of an ISO 9660 image.
  Result<void> begin(Formats formats);
  /// The place of a regular file. False: it must be unpacked.
  Result<bool> find(const ArchiveHandle& handle);
  /// That the last member's bytes end where the next header begins.
  Result<void> check_end(const ArchiveHandle& handle) const;
  /// There is no last member.
  void forget_last() noexcept { last_.reset(); }

 private:
  /// All of these: false when it must be unpacked.
  Result<bool> find_in_zip(const ArchiveHandle& handle);
  Result<bool> is_plain_in_iso(const ArchiveHandle& handle) const;

  Member& member_;
  const MemberMessages& messages_;
  const std::shared_ptr<ByteSource> source_;
  const ReadLimits& limits_;
  std::unique_ptr<const ZipDirectory> zip_;  // read with the first member
  std::optional<IsoDirectory> iso_;
  std::optional<Range> last_;  // of the last member, when its bytes lie one after the other
};

}  // namespace mkvirtfs::archive
