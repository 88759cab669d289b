// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>

#include "block/device.h"
#include "support/error.h"

namespace mkvirtfs::nbd {

/// What a request asks of its device that may have to wait for a disk. A session makes it; whoever
/// drives the session runs it, on any thread, and hands it back.
///
/// Keeps its device alive and knows nothing of its session, which may be gone when it is done.
class Job {
 public:
  enum class Work : std::uint8_t {
    fetch,  ///< bring the bytes of the range where they can be read at once
    flush,
  };
  Job(std::shared_ptr<BlockDevice> device, Work work, Range range)
      : device_(std::move(device)), work_(work), range_(range) {}

  /// Does it, once. Throws nothing: what a device throws becomes a failure.
  void run() noexcept;

  /// Of a job that was run.
  const Result<void>& result() const noexcept { return result_; }

 private:
  const std::shared_ptr<BlockDevice> device_;
  const Work work_;
  const Range range_;
  Result<void> result_;
};

}  // namespace mkvirtfs::nbd
