// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>

#include "block/device.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs {

/// Dump to a path. A regular file appears there whole or not at all: it is written without a name
/// beside its place (or, where the host cannot do that, under a temporary name) and gets its name
/// at the end. FIFOs and character devices are written as streams; a block device is overwritten
/// in place.
struct DumpFile {
  std::string path{};
  /// Replace a file that is there, or write over a block device.
  bool overwrite = false;
};

/// Dump to a descriptor that is written from front to end, zeroes included: a pipe, a socket.
struct DumpStream {
  int fd = -1;         ///< not owned
  std::string name{};  ///< for messages: "standard output"
};

/// How far a dump is. Data is everything but holes: what takes the time.
struct DumpProgress {
  std::uint64_t data_done_bytes = 0;
  std::uint64_t data_bytes = 0;
  std::uint64_t image_bytes = 0;
};

struct DumpOptions {
  std::variant<DumpFile, DumpStream> output{};
  /// Hash the whole image, holes included, while it is written.
  bool sha256 = false;
  unsigned threads = 0;  ///< 0: one a processor, at most 4
  /// Set from anywhere, even a signal handler: the dump fails with ECANCELED and leaves nothing.
  /// It ends the wait for the reader of a FIFO, too.
  const std::atomic<bool>* cancel = nullptr;
  /// Told when the other end of a FIFO is waited for; must outlive the call.
  LogSink* log = &null_log();
  /// Called on the thread that called dump(), about every `progress_interval` and once at the end.
  std::function<void(const DumpProgress&)> progress{};
  std::chrono::milliseconds progress_interval{100};
};

struct DumpSummary {
  std::uint64_t image_bytes = 0;
  std::uint64_t data_bytes = 0;   ///< the image without its holes
  std::uint64_t moved_bytes = 0;  ///< of these, what the kernel copied or shared between files
  std::optional<std::array<std::byte, 32>> sha256;
};

/// Writes every byte of `device` to `options.output`: law 2, what read() would say. Files become
/// sparse where the map has holes. The device must not be written meanwhile.
///
/// Errors: what read() says (Errc::source_changed among them); Errc::no_space when the host is
/// full; Errc::io with EEXIST, EISDIR and their kin for an output that cannot be. On any error a
/// file that was begun is gone again, and one that stood there before is untouched; streams and
/// block devices keep what they got. The program should ignore SIGPIPE and SIGXFSZ, which would end
/// it before the error can be reported.
Result<DumpSummary> dump(BlockDevice& device, const DumpOptions& options);

}  // namespace mkvirtfs
