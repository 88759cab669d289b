// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/archive/archive_handle.h"
#include "fsgen/archive/member_log.h"
#include "fsgen/archive/read_members.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::archive {

/// Names the archive, the member and the offset in whatever is wrong with a member, or worth a
/// line of the log.
class MemberMessages {
 public:
  /// `member` is the one that is being read.
  MemberMessages(std::string archive, const Member& member, LogSink& log)
      : archive_(std::move(archive)), member_(member), log_(log) {}

  /// Of which archive the member is an entry.
  void set_handle(const ArchiveHandle& handle) noexcept { handle_ = &handle; }

  const std::string& archive() const noexcept { return archive_; }
  /// "rootfs.tar: member etc/passwd, byte 1536: WHAT"
  std::unexpected<Error> wrong(std::string_view what, Errc code = Errc::unreadable,
                               std::vector<Setting> hints = {}) const;
  std::unexpected<Error> wrong(Error error) const;
  /// A line of the log; of many the first few.
  void remark(std::string_view what);
  void warn(std::string_view what) const;

 private:
  const std::string archive_;
  const Member& member_;
  LogSink& log_;
  const ArchiveHandle* handle_ = nullptr;
  std::uint64_t remarks_ = 0;
};

/// What members may still cost: ReadLimits.
class MemberBudget {
 public:
  explicit MemberBudget(const ReadLimits& limits) : limits_(limits) {}

  const ReadLimits& limits() const noexcept { return limits_; }
  /// False beyond the limit: then nothing is taken.
  bool take(std::uint64_t bytes) noexcept {
    if (!has(bytes)) return false;
    bytes_ += bytes;
    return true;
  }
  bool has(std::uint64_t bytes) const noexcept {
    return bytes_ <= limits_.most_bytes && bytes <= limits_.most_bytes - bytes_;
  }

 private:
  const ReadLimits& limits_;
  std::uint64_t bytes_ = 0;
};

}  // namespace mkvirtfs::archive
