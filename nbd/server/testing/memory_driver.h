// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "nbd/server/session.h"
#include "nbd/wire/testing/messages.h"

namespace mkvirtfs::nbd::testing {

/// Drives a Session over memory, as a Connection does over a socket. `step` bytes of input arrive
/// at a time; file runs are read with pread, between `before_move` and `after_move`.
class MemoryDriver {
 public:
  explicit MemoryDriver(Session& session, std::size_t step = SIZE_MAX)
      : session_(session), step_(step) {}

  std::function<void()> before_move;
  std::function<void()> after_move;
  bool move_unsupported = false;
  std::size_t largest_batch = 0;  ///< owned bytes
  std::size_t batches = 0;
  std::size_t file_runs = 0;
  std::size_t jobs = 0;

  /// Feeds `more`, and returns what the server answered.
  Bytes exchange(std::span<const std::byte> more) {
    Bytes answers;
    while (true) {
      pump(answers);
      if (more.empty() || session_.finished()) return answers;
      const auto part = more.first(std::min(step_, more.size()));
      more = more.subspan(part.size());
      input_ += part;
    }
  }

  std::size_t unused_input() const { return input_.size(); }

 private:
  void pump(Bytes& answers) {
    while (true) {
      const std::size_t used = session_.consume(input_);
      input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(used));
      if (session_.batch().empty()) {
        const auto job = session_.take_job();
        if (!job) return;
        ++jobs;
        job->run();
        session_.job_done(job);
        continue;
      }
      ++batches;
      largest_batch = std::max(largest_batch, session_.batch().owned_bytes());
      std::vector<iovec> parts;
      session_.batch().gather(parts);
      for (const iovec& part : parts) {
        answers += std::span(static_cast<const std::byte*>(part.iov_base), part.iov_len);
      }
      FileMove move;
      if (session_.batch().file()) move_file(*session_.batch().file(), answers, move);
      session_.batch_sent(move);
    }
  }

  void move_file(const Batch::FileRun& run, Bytes& answers, FileMove& move) {
    ++file_runs;
    if (before_move) before_move();
    if (move_unsupported) {
      move.unsupported = true;
    } else {
      Bytes moved(run.length);
      while (move.moved_bytes < run.length) {
        const ssize_t count =
            ::pread(run.file.fd(), moved.data() + move.moved_bytes, run.length - move.moved_bytes,
                    static_cast<off_t>(run.offset + move.moved_bytes));
        if (count <= 0) break;
        move.moved_bytes += static_cast<std::uint64_t>(count);
      }
      answers += std::span(moved).first(move.moved_bytes);
    }
    if (after_move) after_move();
  }

  Session& session_;
  std::size_t step_;
  Bytes input_;
};

}  // namespace mkvirtfs::nbd::testing
