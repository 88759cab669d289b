// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "block/device.h"
#include "nbd/batch.h"
#include "nbd/codec.h"
#include "nbd/reply.h"

namespace mkvirtfs::nbd {

/// How the bytes of a file run that the batch asked for have fared.
struct FileMove {
  std::uint64_t moved_bytes = 0;  ///< sent to the client
  bool unsupported = false;       ///< the kernel can not move bytes of this file to this socket
};

/// Answers reads, one at a time: the device's map, put into batches.
///
/// A hole becomes a hole chunk or zeroes, memory is copied or lent, small runs of files are read,
/// and a long one is left to whoever sends the batch: it must then tell by batch_sent() how that
/// went, because only then is known whether the bytes were good. A long read takes as many batches
/// as it needs.
///
/// A chunk's header tells the length of what follows, so there are two ways to write one. Small
/// pieces gather in an open chunk, whose header is filled in when it is closed, within the same
/// batch. Everything else is promised first and owed then: one chunk for all (DF), a simple reply,
/// a file run. What is owed must come even when it can not be read: then it is padded, and an error
/// chunk behind it says so. A simple reply has no such way out: it is broken().
///
/// Belongs to one thread; device and batch live longer.
class ReadReply {
 public:
  /// `file_run_bytes`: runs of files from this size on are left to the kernel.
  ReadReply(BlockDevice& device, Batch& out, bool structured, std::uint64_t file_run_bytes);

  /// Takes up a read that the command table found legal. Only when not active().
  void begin(const Request& request);
  /// The answer is not complete.
  bool active() const noexcept { return active_; }
  /// Puts more of the answer into the batch, until that is full or the answer complete.
  void advance();

  /// The batch was sent and cleared; `move` says how its file run fared, if it had one.
  void batch_sent(const FileMove& move);

  /// The client was promised bytes that can not be had, and there is no way to say so but to
  /// disconnect it.
  bool broken() const noexcept { return broken_; }
  /// Why it is broken.
  const std::string& reason() const noexcept { return failure_.text; }

 private:
  /// Extents are looked up this many at a time.
  static constexpr std::size_t kPlannedExtents = 64;

  void plan();
  void add(const Extent& extent);
  void add_hole(const Extent& hole);
  void add_zeroes(std::uint64_t wanted);
  void add_memory(const Extent& piece);
  void add_by_reading(const Extent& piece);
  void add_file_run(const Extent& piece);
  void add_padding();
  void added(std::uint64_t count);
  std::size_t fitting(std::uint64_t wanted) const noexcept;
  void open_chunk();
  void close_chunk(std::uint16_t flags, std::uint64_t still_to_come);
  void finish();
  void fail(const Error& error, std::uint64_t offset);

  BlockDevice& device_;
  Batch& out_;
  const bool structured_;
  const std::uint64_t file_run_bytes_;
  const std::uint32_t block_bytes_;
  bool file_runs_ = true;  // until the kernel has refused one
  bool broken_ = false;

  // The read that is being answered.
  bool active_ = false;
  std::uint64_t cookie_ = 0;
  Range range_;
  std::uint64_t position_ = 0;  // everything before it is in the batch or was sent
  bool one_chunk_ = false;      // DF, or a simple reply: one header for everything
  bool done_told_ = false;      // the last chunk said that it is the last
  std::uint64_t owed_ = 0;      // bytes promised by a header and still to come
  bool failed_ = false;         // nothing but padding and the error is still to come
  Failure failure_;

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

  // Extents from position_ on, adjacent holes made one.
  std::array<Extent, kPlannedExtents> planned_;
  std::size_t planned_count_ = 0;
  std::size_t planned_next_ = 0;
};

}  // namespace mkvirtfs::nbd
