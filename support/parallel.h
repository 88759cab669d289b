// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <string_view>

#include "support/error.h"
#include "support/worker_pool.h"

// Work that several threads share. `--threads` ends here: 0 always stands for "not given".

namespace mkvirtfs {

/// `wanted` threads, or one for each processor that we may use when that is 0: from 1 to `most`.
unsigned thread_count(unsigned wanted,
                      unsigned most = std::numeric_limits<unsigned>::max()) noexcept;

struct ParallelLoop {
  /// At most so many threads, the caller's among them; 0: one a processor.
  unsigned threads = 0;
  /// What an exception becomes an error of: "plan the directories".
  std::string_view doing{};
};

/// Calls `body` once for each number below `count`, on several threads at once, and returns when
/// all calls have returned. The caller's thread is one of them; the others block asynchronous
/// signals. Fewer threads than wanted do the work when the host starts no more: the caller's alone
/// when it starts none.
///
/// Numbers are begun in their order. The first error, by number, is the result: all numbers before
/// it were done, and those behind it that had not begun by then are left out. An exception of
/// `body` is an error: see error_of_exception().
Result<void> parallel_for(std::size_t count, const ParallelLoop& loop,
                          const std::function<Result<void>(std::size_t number)>& body);

/// For work that is no range of numbers: has `pool` call `body`, which must not throw, once for
/// each number from 0 on, up to `threads` times at once. Returns how many calls there will be; they
/// have ended when the pool has. 0: the host starts no thread, so the caller must do the work.
/// May throw std::bad_alloc, before the first call.
unsigned start_crew(WorkerPool& pool, unsigned threads, std::function<void(unsigned number)> body);

}  // namespace mkvirtfs
