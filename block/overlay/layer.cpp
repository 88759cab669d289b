// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/layer.h"

#include <algorithm>
#include <utility>

#include "support/arithmetic.h"

namespace mkvirtfs {

OverlayLayer::OverlayLayer(std::shared_ptr<BlockDevice> below, std::unique_ptr<OverlayFile> file,
                           std::shared_ptr<OverlayStore> store)
    : below_(std::move(below)),
      file_(std::move(file)),
      store_(file_ ? file_->store() : std::shared_ptr<OverlayStore>(std::move(store))),
      geometry_(below_->geometry()),
      states_(ceil_div<std::uint64_t>(geometry_.size_bytes, kBlockBytes)) {
  geometry_.preferred_block_bytes = std::max(geometry_.preferred_block_bytes, kBlockBytes);
  geometry_.writable = false;
  ++geometry_.overlays;
  if (file_) file_->load(states_);
}

OverlayBlocks blocks_in(Range range) noexcept {
  const std::uint64_t first = range.offset / kOverlayBlockBytes;
  return {first, ceil_div<std::uint64_t>(range.end(), kOverlayBlockBytes) - first};
}

/// The run of blocks that the front of `range`, which is not empty, lies in.
BlockStates::Run OverlayLayer::run_at(Range range) const {
  return states_.run_at(blocks_in(range));
}

Result<void> OverlayLayer::read(std::uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const BlockStates::Run run = run_at({offset, out.size()});
    const std::uint64_t end = std::min(run.blocks.end() * kBlockBytes, offset + out.size());
    const std::span<std::byte> part = out.first(static_cast<std::size_t>(end - offset));
    Result<void> result;
    switch (run.state) {
      case BlockState::below:
        result = below_->read(offset, part);
        break;
      case BlockState::here:
        result = store_->read(OverlayStore::kContent, offset, part);
        break;
      case BlockState::zero:
        std::ranges::fill(part, std::byte{0});
        break;
    }
    if (!result) return result;
    out = out.subspan(part.size());
    offset = end;
  }
  return {};
}

void OverlayLayer::map(Range range, ExtentSink& sink) const {
  bool goes_on = true;
  while (goes_on && range.length > 0) {
    const BlockStates::Run run = run_at(range);
    const std::uint64_t end = std::min(run.blocks.end() * kBlockBytes, range.end());
    const Range part{range.offset, end - range.offset};
    if (run.state == BlockState::below) {
      for_each_extent(*below_, part, [&](Extent extent) {
        ++extent.layer;
        return goes_on = sink.extent(extent);
      });
    } else {
      Extent extent;
      extent.offset = part.offset;
      extent.length = part.length;
      if (run.state == BlockState::here) {
        extent.kind = ExtentKind::content;
        extent.store = store_.get();
        extent.content = OverlayStore::kContent;
        extent.content_offset = part.offset;
      }
      goes_on = sink.extent(extent);
    }
    range = {end, range.end() - end};
  }
}

std::uint64_t OverlayLayer::set(OverlayBlocks blocks, BlockState state) {
  const std::uint64_t were_here = states_.set(blocks, state);
  if (file_) file_->changed(blocks);
  return were_here;
}

}  // namespace mkvirtfs
