// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "block/device.h"
#include "block/overlay/block_states.h"
#include "block/overlay/file.h"
#include "block/overlay/layout.h"
#include "block/overlay/store.h"
#include "support/error.h"

namespace mkvirtfs {

/// The blocks that lie in a range, with those that lie there in part.
OverlayBlocks blocks_in(Range range) noexcept;

/// What was written over a device, and the device below: an overlay as it is read. Overlay writes
/// the one on top; one that a snapshot has frozen is a device that is never written again.
///
/// Reading takes no lock but those inside BlockStates. Any method, any thread.
class OverlayLayer final : public BlockDevice {
 public:
  static constexpr std::uint32_t kBlockBytes = kOverlayBlockBytes;

  /// Temporary when `file` is null, and then the bytes are in `store`; else they are in the file.
  OverlayLayer(std::shared_ptr<BlockDevice> below, std::unique_ptr<OverlayFile> file,
               std::shared_ptr<OverlayStore> store);

  /// As it is seen from above: read-only.
  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override;
  void map(Range range, ExtentSink& sink) const override;
  /// What is computed is the other device's.
  bool may_wait(DeviceCall call, Range range) const override {
    return below_->may_wait(call, range);
  }

  /// Sets states and sees to it that the next flush knows; returns how many were `here` before.
  std::uint64_t set(OverlayBlocks blocks, BlockState state);
  Result<void> flush() override { return file_ ? file_->flush(states_) : Result<void>(); }

  const std::shared_ptr<BlockDevice>& below() const noexcept { return below_; }
  OverlayStore& store() const noexcept { return *store_; }
  const BlockStates& states() const noexcept { return states_; }
  /// Null when it is temporary.
  OverlayFile* file() const noexcept { return file_.get(); }

 private:
  BlockStates::Run run_at(Range range) const;

  const std::shared_ptr<BlockDevice> below_;
  const std::unique_ptr<OverlayFile> file_;
  const std::shared_ptr<OverlayStore> store_;
  Geometry geometry_;
  BlockStates states_;
};

}  // namespace mkvirtfs
