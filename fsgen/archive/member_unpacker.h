// SPDX-License-Identifier: BSD-3-Clause
// Private to this room: it shows types of libarchive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "fsgen/archive/archive_handle.h"
#include "fsgen/archive/member_log.h"
#include "fsgen/archive/member_messages.h"
#include "fsgen/archive/members_sink.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/stream/byte_source.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// Unpacks members into a sink, and verifies what rar's own headers say about them.
class MemberUnpacker {
 public:
  /// `source` is the archive; none for one that comes forwards. Without a `sink` what must be
  /// unpacked is refused.
  MemberUnpacker(Member& member, const MemberMessages& messages, std::shared_ptr<ByteSource> source,
                 const ReadOptions& options, MembersSink* sink)
      : member_(member),
        messages_(messages),
        source_(std::move(source)),
        options_(options),
        sink_(sink) {}

  /// For each entry of any format: of a rar archive this is the checksum that its bytes must have.
  Result<void> next_entry(const ArchiveHandle& handle);
  /// That the target of a symlink, which is the member's data in a rar archive, is what was packed.
  Result<void> check_symlink() const;
  /// All bytes of the entry.
  Result<void> unpack(ArchiveHandle& handle, MemberBudget& budget);

 private:
  /// What of a member is unpacked so far.
  struct Progress {
    std::optional<std::uint64_t> announced;  ///< how long it will be, when that is known
    std::uint64_t size_bytes = 0;
    unsigned long crc = 0;
  };
  Result<void> take_block(std::uint64_t offset, std::span<const std::byte> bytes,
                          const MemberBudget& budget, Progress& progress);
  Result<void> fill_hole(std::uint64_t until, Progress& progress);
  Result<void> check_checksum(unsigned long found) const;

  Member& member_;
  const MemberMessages& messages_;
  const std::shared_ptr<ByteSource> source_;
  const ReadOptions& options_;
  MembersSink* const sink_;
  std::uint64_t unpacked_bytes_ = 0;  // in the sink
  // Of a rar archive, by entry: read with the first one.
  std::optional<std::vector<std::optional<std::uint32_t>>> checksums_;
  std::size_t entries_ = 0;
  std::optional<std::uint32_t> checksum_;  // of this entry
};

}  // namespace mkvirtfs::archive
