// SPDX-License-Identifier: BSD-3-Clause
#include "block/dump.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <condition_variable>
#include <memory>
#include <utility>
#include <vector>

#include "block/content.h"
#include "block/dump_output.h"
#include "support/arithmetic.h"
#include "support/message.h"
#include "support/mutex.h"
#include "support/parallel.h"
#include "support/sha256.h"
#include "support/worker_pool.h"

namespace mkvirtfs {
namespace {

/// What one read() and one write() move: large enough that system calls cost nothing, small enough
/// to stay in a processor's cache between the two.
constexpr std::uint64_t kBufferBytes = 1 << 20;
/// What a worker takes at a time when the order does not matter: long runs for copy_file_range.
constexpr std::uint64_t kPieceBytes = 16 << 20;
/// Without --threads: more do not make a disk faster.
constexpr unsigned kMostUnaskedThreads = 4;
/// Host file systems keep holes in units of this.
constexpr std::uint64_t kHoleUnit = 4096;
/// From here on a file run is worth three system calls of its own (fstat, copy, fstat). Measured
/// with the Linux source tree on ext4: a third less processor time than with none, and no less from
/// 8 KiB.
constexpr std::uint64_t kSmallestMove = 32 << 10;

/// A part of the image that is written in one manner.
struct Step {
  Range range;
  bool move = false;  ///< all of it is `extent`, for the kernel to move; else to be read
  Extent extent{};
};

/// Splits `range` into the steps that write it. With `sparse` holes are left out, because the
/// output has zeroes there already; but a gap without a whole unit of hole would not stay a hole,
/// and is written with what lies around it.
void plan_steps(const BlockDevice& device, Range range, bool sparse, bool move,
                std::vector<Step>& steps) {
  steps.clear();
  for_each_extent(device, range, [&](const Extent& extent) {
    if (extent.kind == ExtentKind::hole && sparse) return true;
    if (extent.kind == ExtentKind::content && move && extent.length >= kSmallestMove) {
      steps.push_back({.range = {extent.offset, extent.length}, .move = true, .extent = extent});
      return true;
    }
    if (!steps.empty() && !steps.back().move) {
      Range& last = steps.back().range;
      if (round_up(last.end(), kHoleUnit) + kHoleUnit > extent.offset) {
        last.length = extent.end() - last.offset;
        return true;
      }
    }
    steps.push_back({.range = {extent.offset, extent.length}});
    return true;
  });
}

std::uint64_t data_bytes_of(const BlockDevice& device, Range range) {
  std::uint64_t sum = 0;
  for_each_extent(device, range, [&](const Extent& extent) {
    if (extent.kind != ExtentKind::hole) sum += extent.length;
    return true;
  });
  return sum;
}

/// What all workers and the thread that called dump() share.
class Dump {
 public:
  Dump(BlockDevice& device, const DumpOptions& options, const DumpOutput& output)
      : device_(device),
        options_(options),
        output_(output),
        image_bytes_(device.geometry().size_bytes),
        data_bytes_(data_bytes_of(device, {0, image_bytes_})),
        in_order_(output.is_stream() || options.sha256),
        piece_bytes_(in_order_ ? kBufferBytes : kPieceBytes),
        piece_count_(ceil_div(image_bytes_, piece_bytes_)) {}

  Result<DumpSummary> run();

 private:
  /// A piece's bytes on their way from the worker that read them to the one who takes them in
  /// order. Piece n uses slot n modulo their number.
  struct Slot {
    std::vector<std::byte> buffer;
    bool ready = false;
    bool all_zero = false;  ///< then the buffer holds anything
    std::uint64_t data_bytes = 0;
  };

  /// Has threads of `pool` call work(); when there are none, this thread does all there is to do.
  void start_workers(WorkerPool& pool, unsigned threads);
  void work() noexcept;
  Result<void> work_unordered();
  Result<void> work_in_order();
  /// Reads a piece into its slot, which is empty, and writes it where the output is no stream.
  Result<void> fill(std::uint64_t number, std::vector<Step>& steps);
  /// Waits until the slot of a piece is full; false when somebody has failed.
  Result<bool> wait_for(std::uint64_t number, std::vector<Step>& steps);
  /// Has the output take the pieces in order.
  void take() noexcept;
  Result<void> take_in_order();
  void wait_for_workers();

  Range piece(std::uint64_t number) const noexcept {
    const std::uint64_t offset = number * piece_bytes_;
    return {offset, std::min(piece_bytes_, image_bytes_ - offset)};
  }
  std::span<const std::byte> bytes_in(const Slot& slot, Range range) const noexcept {
    return std::span(slot.all_zero ? zeroes_ : slot.buffer)
        .first(static_cast<std::size_t>(range.length));
  }
  /// Writes one piece, in any order.
  Result<void> copy_piece(Range range, std::vector<Step>& steps, std::span<std::byte> buffer);
  Result<void> read_and_write(Range range, std::span<std::byte> buffer);
  /// False when the kernel cannot do it, or the file changed meanwhile: then it must be read.
  Result<bool> move(const Extent& extent);

  void give_up(Error error);
  bool cancelled() const noexcept { return options_.cancel != nullptr && *options_.cancel; }
  Result<void> check_cancel() const;
  void count_done(std::uint64_t data_bytes) noexcept { data_done_bytes_ += data_bytes; }
  void tell_progress();

  BlockDevice& device_;
  const DumpOptions& options_;
  const DumpOutput& output_;
  const std::uint64_t image_bytes_;
  const std::uint64_t data_bytes_;
  const bool in_order_;
  const std::uint64_t piece_bytes_;
  const std::uint64_t piece_count_;

  std::atomic<std::uint64_t> next_piece_ = 0;
  std::atomic<std::uint64_t> data_done_bytes_ = 0;
  std::atomic<std::uint64_t> moved_bytes_ = 0;
  std::atomic<bool> can_move_ = true;
  std::atomic<bool> stopped_ = false;  // somebody failed
  bool is_alone_ = false;              // the host starts no thread: the caller's does all

  Mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<Error> failure_ GUARDED_BY(mutex_);
  unsigned working_ GUARDED_BY(mutex_) = 0;
  std::vector<std::byte> zeroes_;
  std::vector<Slot> slots_;  // `ready` is guarded; who may touch the rest follows from it
  std::uint64_t taken_ GUARDED_BY(mutex_) = 0;  // pieces that left their slots
  std::optional<std::array<std::byte, 32>> sha256_;
};

Result<DumpSummary> Dump::run() {
  const unsigned wanted =
      options_.threads != 0 ? options_.threads : thread_count(0, kMostUnaskedThreads);
  const auto threads = static_cast<unsigned>(
      std::min<std::uint64_t>(wanted, std::max<std::uint64_t>(1, piece_count_)));
  if (in_order_) {
    slots_.resize(threads + 2);
    for (Slot& slot : slots_) slot.buffer.resize(kBufferBytes);
    zeroes_.resize(kBufferBytes);
  }
  // Its threads block signals: a blocked write of the caller must be the one that is interrupted.
  WorkerPool pool(threads);
  start_workers(pool, threads);
  if (in_order_) {
    take();
  } else if (is_alone_) {
    work();
  }
  wait_for_workers();
  {
    const MutexLock lock(mutex_);
    if (failure_) return std::unexpected(std::move(*failure_));
  }
  if (options_.progress) tell_progress();
  return DumpSummary{.image_bytes = image_bytes_,
                     .data_bytes = data_bytes_,
                     .moved_bytes = moved_bytes_,
                     .sha256 = sha256_};
}

void Dump::start_workers(WorkerPool& pool, unsigned threads) {
  {
    const MutexLock lock(mutex_);
    working_ = threads;
  }
  const unsigned started = start_crew(pool, threads, [this](unsigned /*number*/) { work(); });
  is_alone_ = started == 0;
  const MutexLock lock(mutex_);
  working_ -= threads - started;
  if (is_alone_ && !in_order_) working_ = 1;  // this thread
}

void Dump::work() noexcept {
  // Exceptions stop at thread borders; what throws here is a lack of memory.
  try {
    Result<void> result = in_order_ ? work_in_order() : work_unordered();
    if (!result) give_up(std::move(result.error()));
  } catch (...) {
    give_up(error_of_exception(fmt::format("write {}", output_.name())));
  }
  const MutexLock lock(mutex_);
  --working_;
  changed_.notify_all();
}

void Dump::take() noexcept {
  // The workers wait for this thread, so an exception must not pass over them either.
  try {
    if (Result<void> taken = take_in_order(); !taken) give_up(std::move(taken.error()));
  } catch (...) {
    give_up(error_of_exception(fmt::format("write {}", output_.name())));
  }
}

void Dump::give_up(Error error) {
  const MutexLock lock(mutex_);
  if (!failure_) failure_ = std::move(error);
  stopped_ = true;
  changed_.notify_all();
}

Result<void> Dump::check_cancel() const {
  if (!cancelled()) return {};
  return std::unexpected(
      Error{Errc::io, ECANCELED, fmt::format("interrupted; {} is not complete", output_.name())});
}

void Dump::tell_progress() {
  // Small holes are written with the data around them, and were not counted as data beforehand.
  options_.progress(
      {std::min<std::uint64_t>(data_done_bytes_, data_bytes_), data_bytes_, image_bytes_});
}

void Dump::wait_for_workers() {
  auto next_report = std::chrono::steady_clock::now();
  while (true) {
    next_report += options_.progress_interval;
    {
      MutexLock lock(mutex_);
      while (working_ != 0) {
        if (lock.wait_until(changed_, next_report) == std::cv_status::timeout) break;
      }
      if (working_ == 0) return;
    }
    if (options_.progress && !stopped_) tell_progress();
  }
}

Result<void> Dump::work_unordered() {
  std::vector<std::byte> buffer(kBufferBytes);
  std::vector<Step> steps;
  while (!stopped_) {
    const std::uint64_t number = next_piece_++;
    if (number >= piece_count_) break;
    if (Result<void> copied = copy_piece(piece(number), steps, buffer); !copied) return copied;
  }
  return {};
}

Result<void> Dump::copy_piece(Range range, std::vector<Step>& steps, std::span<std::byte> buffer) {
  plan_steps(device_, range, output_.is_sparse(), can_move_, steps);
  for (const Step& step : steps) {
    if (Result<void> go_on = check_cancel(); !go_on) return go_on;
    if (step.move) {
      const Result<bool> moved = move(step.extent);
      if (!moved) return propagate(moved);
      if (*moved) continue;
    }
    if (Result<void> written = read_and_write(step.range, buffer); !written) return written;
  }
  return {};
}

Result<void> Dump::read_and_write(Range range, std::span<std::byte> buffer) {
  while (range.length != 0) {
    const std::span<std::byte> part = buffer.first(
        static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), range.length)));
    if (Result<void> go_on = check_cancel(); !go_on) return go_on;
    if (Result<void> got = device_.read(range.offset, part); !got) return got;
    if (Result<void> put = output_.write_at(range.offset, part); !put) return put;
    range = {range.offset + part.size(), range.length - part.size()};
    count_done(part.size());
  }
  return {};
}

Result<bool> Dump::move(const Extent& extent) {
  const Result<ContentStore::Pin> pin = extent.store->pin(extent.content);
  if (!pin) return propagate(pin);
  if (!pin->file) return false;
  auto from = static_cast<off64_t>(pin->file_offset + extent.content_offset);
  auto to = static_cast<off64_t>(extent.offset);
  std::uint64_t left = extent.length;
  while (left != 0) {
    const ssize_t count = ::copy_file_range(pin->file.fd(), &from, output_.fd(), &to, left, 0);
    if (count > 0) {
      left -= static_cast<std::uint64_t>(count);
    } else if (count == 0) {
      return false;  // the file ends too early: read() knows what to say
    } else if (errno == EINTR) {
      continue;
    } else if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
      return fail_errno(errno, fmt::format("write {}", output_.name()));
    } else {
      // Another file system, or one that cannot; read() or write() reports what is broken.
      can_move_ = false;
      return false;
    }
  }
  // What changed while it was moved is written anew, or refused: read() has the policy.
  if (!extent.store->recheck(extent.content, pin->file)) return false;
  moved_bytes_ += extent.length;
  count_done(extent.length);
  return true;
}

Result<void> Dump::work_in_order() {
  std::vector<Step> steps;
  while (true) {
    const std::uint64_t number = next_piece_++;
    if (number >= piece_count_) return {};
    {
      MutexLock lock(mutex_);
      while (!stopped_ && number >= taken_ + slots_.size()) lock.wait(changed_);
      if (stopped_) return {};
    }
    if (Result<void> filled = fill(number, steps); !filled) return filled;
    const MutexLock lock(mutex_);
    slots_[number % slots_.size()].ready = true;
    changed_.notify_all();
  }
}

Result<void> Dump::fill(std::uint64_t number, std::vector<Step>& steps) {
  Slot& slot = slots_[number % slots_.size()];
  const Range range = piece(number);
  plan_steps(device_, range, /*sparse=*/true, /*move=*/false, steps);
  slot.all_zero = steps.empty();
  slot.data_bytes = data_bytes_of(device_, range);
  if (!slot.all_zero) {
    const auto buffer = std::span(slot.buffer).first(static_cast<std::size_t>(range.length));
    if (Result<void> got = device_.read(range.offset, buffer); !got) return got;
  }
  if (output_.is_stream()) return {};
  if (!output_.is_sparse()) steps.assign(1, {.range = range});
  const std::span<const std::byte> bytes = bytes_in(slot, range);
  for (const Step& step : steps) {
    const auto skip = static_cast<std::size_t>(step.range.offset - range.offset);
    const auto length = static_cast<std::size_t>(step.range.length);
    const Result<void> put = output_.write_at(step.range.offset, bytes.subspan(skip, length));
    if (!put) return put;
  }
  return {};
}

Result<bool> Dump::wait_for(std::uint64_t number, std::vector<Step>& steps) {
  if (is_alone_) {
    if (Result<void> filled = fill(number, steps); !filled) {
      return propagate(filled);
    }
    return true;
  }
  const Slot& slot = slots_[number % slots_.size()];
  MutexLock lock(mutex_);
  while (!slot.ready && !stopped_) lock.wait(changed_);
  return !stopped_;
}

Result<void> Dump::take_in_order() {
  std::optional<Sha256> digest;
  if (options_.sha256) digest.emplace();
  std::vector<Step> steps;
  auto next_report = std::chrono::steady_clock::now() + options_.progress_interval;
  for (std::uint64_t number = 0; number < piece_count_; ++number) {
    Slot& slot = slots_[number % slots_.size()];
    const Result<bool> is_there = wait_for(number, steps);
    if (!is_there) return propagate(is_there);
    if (!*is_there) return {};  // give_up() has the failure
    if (Result<void> go_on = check_cancel(); !go_on) return go_on;
    const Range range = piece(number);
    const std::span<const std::byte> bytes = bytes_in(slot, range);
    if (output_.is_stream()) {
      if (Result<void> put = output_.append(bytes); !put) return put;
    }
    if (digest) digest->update(bytes);
    count_done(slot.data_bytes);
    {
      const MutexLock lock(mutex_);
      slot.ready = false;
      ++taken_;
      changed_.notify_all();
    }
    if (options_.progress && std::chrono::steady_clock::now() >= next_report) {
      tell_progress();
      next_report = std::chrono::steady_clock::now() + options_.progress_interval;
    }
  }
  if (digest) sha256_ = digest->finish();
  return {};
}

}  // namespace

Result<DumpSummary> dump(BlockDevice& device, const DumpOptions& options) {
  Result<std::unique_ptr<DumpOutput>> output =
      DumpOutput::open(options, device.geometry().size_bytes);
  if (!output) return propagate(output);
  Result<DumpSummary> summary = Dump(device, options, **output).run();
  if (!summary) return summary;
  if (Result<void> published = (*output)->publish(); !published) {
    return propagate(published);
  }
  return summary;
}

}  // namespace mkvirtfs
