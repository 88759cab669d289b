// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "block/device.h"
#include "nbd/server/batch.h"
#include "nbd/server/job.h"
#include "nbd/server/remark.h"
#include "nbd/server/reply.h"
#include "nbd/wire/codec.h"

namespace mkvirtfs::nbd {

/// How the bytes of a file run that the batch asked for have fared.
struct FileMove {
  std::uint64_t moved_bytes = 0;  ///< sent to the client
  bool unsupported = false;       ///< the kernel cannot move bytes of this file to this socket
};

/// The extents ahead of the read that is being answered: scratch that all reads of a connection
/// share, because only one of them is ever put into a batch.
struct ReadAhead {
  /// Extents are looked up this many at a time.
  static constexpr std::size_t kExtents = 64;

  std::array<Extent, kExtents> extents;  ///< adjacent holes made one
  std::size_t count = 0;
  std::size_t next = 0;

  const Extent& front() const noexcept { return extents[next]; }
  bool empty() const noexcept { return next == count; }
  void clear() noexcept { next = count = 0; }
};

/// Answers one read: the device's map, put into batches.
///
/// A hole becomes a hole chunk or zeroes, memory is copied or lent, small runs of files are read,
/// and a long one is left to the sender of the batch, which reports by batch_sent() how that
/// went, because only then is known whether the bytes were good. A long read takes as many batches
/// as it needs.
///
/// A chunk's header has the length of what follows, so there are two ways to write one. Small
/// pieces gather in an open chunk, whose header is filled in when it is closed, within the same
/// batch. Everything else is promised first and owed then: one chunk for all (DF), a simple reply,
/// a file run. What is owed must come even when it cannot be read: then it is padded, and an error
/// chunk behind it says so. A simple reply has no such way out: it is broken().
///
/// Bytes that would have to be waited for are not: the reply is waiting() for wanted() then. If it
/// may be laid aside, other replies can go into the batch meanwhile. Where nothing keeps the bytes
/// at hand, the job that waited for them carries them here.
///
/// Belongs to one thread; everything in Context lives longer.
class ReadReply {
 public:
  /// What all reads of a connection have in common.
  struct Context {
    BlockDevice& device;
    Batch& out;
    ReadAhead& ahead;
    Remarks& remarks;
    ReplyStyle style = ReplyStyle::simple;
    /// Runs of files from this size on are left to the kernel.
    std::uint64_t file_run_bytes = 0;
    bool file_runs = true;  ///< until the kernel has refused one
    /// Whether reads may be waiting(); else the calling thread waits.
    bool lays_aside = true;
  };

  /// Takes up a read that the command table found legal.
  ReadReply(Context& context, const Request& request);

  /// The answer is not complete.
  bool active() const noexcept { return active_; }
  /// Puts more of the answer into the batch, until that is full, the answer complete, or the next
  /// bytes would have to be waited for.
  void advance();

  /// Nothing can be added before the device's bytes in wanted() were fetched.
  bool waiting() const noexcept { return waiting_; }
  Range wanted() const noexcept { return wanted_; }
  /// While it is waiting() no other reply may come between: the client was promised more of this.
  bool holds_the_line() const noexcept { return owed_ != 0; }
  /// They were, or nothing more can be done about it; or they are in `carried`, at least the first
  /// of them or why these cannot be had.
  void fetched(std::optional<CarriedBytes> carried) noexcept;

  /// The batch was sent and cleared; `move` says how its file run fared, if it had one.
  void batch_sent(const FileMove& move);

  /// The client was promised bytes that cannot be had, and there is no way to say so but to
  /// disconnect it.
  bool broken() const noexcept { return broken_; }
  /// The error of the answer, or what broke it; only for one that is no longer active().
  WireError error() const noexcept { return failure_.error; }
  /// Why it is broken.
  const std::string& reason() const noexcept { return failure_.text; }

 private:
  void promise();
  Result<void> plan();
  void wait_for_bytes();
  /// Whether the reply may stop before this piece, because it did not yet.
  bool may_wait_for(const Extent& piece) const noexcept {
    return context_.lays_aside && piece.offset >= patient_until_;
  }
  void add(const Extent& extent);
  void add_hole(const Extent& hole);
  void add_zeroes(std::uint64_t wanted);
  void add_memory(const Extent& piece);
  void add_by_reading(const Extent& piece);
  /// Whether a job read the front of this piece, or failed to.
  bool is_carried(const Extent& piece) const noexcept;
  void add_carried(const Extent& piece);
  void add_file_run(const Extent& piece);
  void add_padding();
  void added(std::uint64_t count);
  std::size_t fitting(std::uint64_t wanted) const noexcept;
  /// Not even the smallest block fits behind what is in the batch.
  bool lacks_room() const noexcept {
    return out_.is_full() || (out_.room() < minimum_block_bytes_ && !out_.empty());
  }
  void open_chunk();
  void close_chunk(std::uint16_t flags, std::uint64_t still_to_come);
  void finish();
  void fail(const Error& error, std::uint64_t offset);

  Context& context_;
  Batch& out_;
  ReadAhead& ahead_;
  const ReplyTo to_;
  const Range range_;
  const std::uint32_t block_bytes_;
  const std::uint32_t minimum_block_bytes_;
  const bool one_chunk_;  // DF, or a simple reply: one header for everything
  bool broken_ = false;
  bool active_ = true;
  bool begun_ = false;
  bool ahead_is_mine_ = false;
  std::uint64_t position_;  // everything before it is in the batch or was sent
  bool done_sent_ = false;  // the last chunk said that it is the last
  std::uint64_t owed_ = 0;  // bytes promised by a header and still to come
  bool failed_ = false;     // nothing but padding and the error is still to come
  Failure failure_;

  bool waiting_ = false;
  Range wanted_;
  std::uint64_t patient_until_ = 0;  // the bytes before it have been waited for once
  std::optional<CarriedBytes> carried_;

  // The header of one_chunk_, while it is in the batch and can be taken back.
  bool revocable_ = false;
  Batch::Mark header_;

  // The open chunk, never longer than the batch that it is in.
  bool chunk_is_open_ = false;
  Batch::Mark chunk_header_;
  std::uint64_t chunk_bytes_ = 0;

  // The file run at the end of the batch.
  bool moving_ = false;
  Extent moving_extent_;
  PinnedFile moving_file_;
};

}  // namespace mkvirtfs::nbd
