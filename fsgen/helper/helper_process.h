// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/stream/byte_source.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::helper {

/// The program that parses formats whose parser is not proved to end, and what it may cost.
struct HelperSettings {
  /// Of the executable (`mkvirtfs-reader`); "" means that there is none.
  std::string path;
  /// Of address space (RLIMIT_AS), beyond what the program itself takes.
  std::uint64_t memory_bytes = std::uint64_t{1} << 30;
  /// How long it may keep its caller waiting without something new: bytes of the source that it has
  /// not read before, records or data.
  std::chrono::milliseconds progress_deadline{10'000};
};

/// Takes what a helper finds. Called on the thread of run_in_helper(), in the helper's order; an
/// error ends the helper.
class HelperSink {
 public:
  virtual ~HelperSink() = default;
  virtual Result<void> records(std::span<const std::byte> bytes) = 0;
  virtual Result<void> data(std::span<const std::byte> bytes) = 0;
  /// All records and data so far were for nothing; they begin anew.
  virtual Result<void> restart() = 0;
};

/// Starts a helper, has it do the job called `kind` with the bytes of `source`, and waits for its
/// last word, which is returned. The helper sees nothing of the host but what it asks for here, and
/// is gone when this returns. `job` is not visible to other users, and may hold secrets.
///
/// What the helper says is as untrusted as the source: its form is checked here, its meaning by the
/// caller. Its remarks go to `log`.
///
/// Errors: those of the helper, of `source` and of `sink` as they are. Errc::unsupported when it
/// cannot be started; Errc::unreadable when it makes no progress, ends early (for lack of memory,
/// say) or talks nonsense. Any thread.
Result<std::vector<std::byte>> run_in_helper(const HelperSettings& settings, std::string_view kind,
                                             std::span<const std::byte> job, ByteSource& source,
                                             HelperSink& sink, LogSink& log);

}  // namespace mkvirtfs::helper
