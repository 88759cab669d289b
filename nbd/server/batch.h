// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/uio.h>

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "block/content.h"

namespace mkvirtfs::nbd {

/// What is to be sent next: a list of memory segments, in wire order, and behind them at most one
/// run of a file. The filler decides when it is full; the sender clears it.
///
/// It has a limit, which its buffer keeps but for the last piece; the filler looks at is_full().
/// Segments are either bytes that the batch owns or borrowed ones, which outlive the sending. Its
/// buffer grows to what was needed and stays, so that a busy connection does not allocate. Belongs
/// to one thread.
class Batch {
 public:
  struct FileRun {
    PinnedFile file;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };

  /// A place in a batch, to shrink it back to.
  struct Mark {
    std::size_t used = 0;
    std::size_t segments = 0;
    std::size_t total = 0;
  };

  /// What may be added to a batch that is not full, whatever it is: the longest error reply and
  /// more.
  static constexpr std::size_t kPieceBytes = 8U << 10;

  explicit Batch(std::size_t limit_bytes = 256U << 10) : limit_bytes_(limit_bytes) {
    assert(limit_bytes >= 2 * kPieceBytes);
  }

  bool empty() const noexcept { return total_ == 0 && !file_; }
  /// Bytes in memory segments, the borrowed ones included.
  std::size_t size_bytes() const noexcept { return total_; }
  /// Bytes that the batch owns.
  std::size_t owned_bytes() const noexcept { return used_; }
  std::size_t segment_count() const noexcept { return segments_.size(); }
  /// Owned bytes up to the limit.
  std::size_t room() const noexcept { return limit_bytes_ > used_ ? limit_bytes_ - used_ : 0; }
  bool is_full() const noexcept {
    return file_.has_value() || segments_.size() >= kMostSegments || room() < kPieceBytes;
  }
  const std::optional<FileRun>& file() const noexcept { return file_; }

  /// Adds `count` owned bytes, which the caller fills before it calls anything else.
  std::span<std::byte> extend(std::size_t count);
  void append(std::span<const std::byte> bytes);
  void borrow(std::span<const std::byte> bytes);
  /// Adds a run of a file; nothing can follow it.
  void set_file(FileRun run);

  /// The place behind the last byte: an owned byte that is added next stands at `used`.
  Mark mark() const noexcept { return {used_, segments_.size(), total_}; }
  /// Takes back everything since `mark`.
  void rewind(const Mark& mark);
  /// Overwrites owned bytes that were added from `mark` on.
  std::span<std::byte> owned_at(const Mark& mark, std::size_t count) noexcept;

  /// Forgets the content and keeps the buffer.
  void clear() noexcept;
  /// Gives the buffer back, too.
  void release() noexcept;

  /// The memory segments as the kernel wants them; appended to `out`.
  void gather(std::vector<iovec>& out) const;

 private:
  struct Segment {
    const std::byte* borrowed = nullptr;  // or nullptr: owned
    std::size_t owned_at = 0;
    std::size_t length = 0;
  };

  /// Below IOV_MAX, with room for the segments of one more piece.
  static constexpr std::size_t kMostSegments = 1000;

  const std::size_t limit_bytes_;
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t capacity_ = 0;
  std::size_t used_ = 0;
  std::size_t total_ = 0;
  std::vector<Segment> segments_;
  std::optional<FileRun> file_;
};

}  // namespace mkvirtfs::nbd
