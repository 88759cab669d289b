// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "block/device.h"
#include "exports/export_tree.h"
#include "net/job_queue.h"
#include "support/error.h"

namespace mkvirtfs::nbd {

/// Bytes of a device that a job read itself, because nothing else would keep them at hand. They are
/// those at the front of the job's range, as far as they could be read.
struct CarriedBytes {
  std::uint64_t offset = 0;  ///< in the device
  std::size_t length = 0;
  std::unique_ptr<std::byte[]> bytes;
  /// Why they end where they end; nothing when there are as many as there should be.
  std::optional<Error> failure;

  std::uint64_t end() const noexcept { return offset + length; }
};

/// What a request asks of its device that may have to wait. A session makes it; what drives the
/// session runs it, on any thread, and hands it back.
///
/// Keeps its device alive, but not the tree that it opens an export of, and knows nothing of its
/// session, which may be gone when it is done.
class Job final : public net::LaneTask {
 public:
  /// The most that a job carries.
  static constexpr std::size_t kMostCarriedBytes = 1U << 20;

  enum class Work : std::uint8_t {
    /// Bring the bytes of the range where they can be read at once, with nothing to take from the
    /// job.
    fetch,
    /// The same for a read that follows, which takes what the job had to carry.
    read,
    flush,
    write,  ///< of `payload`, which is as long as the range
    zero,
    zero_allocated,
    trim,
    open,  ///< an export, whose device is not there yet
  };
  Job(std::shared_ptr<BlockDevice> device, Work work, Range range,
      std::unique_ptr<std::byte[]> payload = nullptr)
      : device_(std::move(device)), work_(work), range_(range), payload_(std::move(payload)) {}

  /// Opens an export of a tree that outlives the job.
  Job(ExportTree& exports, std::string name)
      : work_(Work::open), exports_(&exports), name_(std::move(name)) {}

  /// What it waits for: the device, or an export that is opened.
  net::LaneKey lane() const override {
    return work_ == Work::open ? net::LaneKey(exports_, name_)
                               : net::LaneKey(device_.get(), std::string());
  }

  /// Does it, once. Throws nothing: what a device throws becomes a failure.
  void run() noexcept override;
  /// Of a job that was run: result() is what the device threw.
  bool has_thrown() const noexcept { return has_thrown_; }

  /// Of a job that was run.
  const Result<void>& result() const noexcept { return result_; }
  /// Of Work::open, once.
  Result<Export> take_opened() noexcept {
    if (!result_) return propagate(result_);
    return std::move(opened_);
  }
  /// Of Work::read: nothing when all of the range can be read at once now, as far as one can know.
  /// Once.
  std::optional<CarriedBytes> take_carried() noexcept {
    return std::exchange(carried_, std::nullopt);
  }

 private:
  Result<void> work();
  void bring();
  void carry();

  const std::shared_ptr<BlockDevice> device_;
  const Work work_;
  const Range range_;
  std::unique_ptr<std::byte[]> payload_;
  ExportTree* const exports_ = nullptr;
  const std::string name_;
  Export opened_;
  Result<void> result_;
  bool has_thrown_ = false;
  std::optional<CarriedBytes> carried_;
};

}  // namespace mkvirtfs::nbd
