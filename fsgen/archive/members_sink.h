// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "fsgen/archive/member_log.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/stream/spool.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// Where the bytes of members go that can only be unpacked from the beginning, one behind the
/// other: MemberPlace::spooled is an offset there.
class MembersSink {
 public:
  virtual ~MembersSink() = default;
  virtual Result<void> append(std::span<const std::byte> bytes) = 0;
  /// All of it, and all members, are for nothing: they begin anew.
  virtual void restart() = 0;
  /// What was found so far; it only gets longer.
  virtual void found(const MemberLog& /*members*/) {}
};

/// Into a spool, which is made when there is something to put into it.
class SpoolSink final : public MembersSink {
 public:
  /// Without a `space` nothing may be appended.
  SpoolSink(std::shared_ptr<SpoolSpace> space, std::string name)
      : space_(std::move(space)), name_(std::move(name)) {}

  Result<void> append(std::span<const std::byte> bytes) override {
    if (!writer_) writer_.emplace(space_, name_);
    return writer_->append(bytes);
  }
  void restart() override { writer_.reset(); }
  /// nullptr when there is nothing in it.
  Result<std::shared_ptr<ByteSource>> finish() {
    if (!writer_) return nullptr;
    return writer_->finish();
  }

 private:
  const std::shared_ptr<SpoolSpace> space_;
  const std::string name_;
  std::optional<SpoolWriter> writer_;
};

/// Which formats libarchive may find.
enum class Formats : std::uint8_t {
  bounded,  ///< tar, cpio, ar and zip: it loops over them no longer than there are bytes to read
  all,
};

/// read_members() in this process. Members that must be unpacked go to `sink`;
/// nullptr: they are refused. nullopt: it is no archive. In what is returned there is no spool.
Result<std::optional<ReadMembers>> read_members_here(const std::shared_ptr<ByteSource>& archive,
                                                     Formats formats, const ReadOptions& options,
                                                     MembersSink* sink, LogSink& log);

}  // namespace mkvirtfs::archive
