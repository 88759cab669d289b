// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/overlay.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "block/overlay/snapshot.h"
#include "support/arithmetic.h"

namespace mkvirtfs {
namespace {

constexpr std::uint64_t kGroupBytes = BlockStates::kGroupBlocks * Overlay::kBlockBytes;

/// More than this takes long, even in memory.
constexpr std::uint64_t kLongBytes = 64U << 20;

/// Whether reading this range of a device may have to wait.
bool read_may_wait(const BlockDevice& device, Range range) {
  bool waits = false;
  for_each_extent(device, range, [&](const Extent& extent) {
    if (extent.kind == ExtentKind::content) {
      waits = !extent.store->is_at_hand(extent.content, extent.content_offset, extent.length);
    } else if (extent.is_made()) {
      waits = device.may_wait(DeviceCall::read, {extent.offset, extent.length});
    }
    return !waits;
  });
  return waits;
}

/// Calls `visit(Range) -> Result<void>` for each part of `range` that lies in one group of blocks.
template <class Visit>
Result<void> for_each_group(Range range, Visit&& visit) {
  while (range.length > 0) {
    const std::uint64_t group_end = round_down(range.offset, kGroupBytes) + kGroupBytes;
    const std::uint64_t part = std::min(range.end(), group_end) - range.offset;
    if (const Result<void> result = visit(Range{range.offset, part}); !result) return result;
    range = {range.offset + part, range.length - part};
  }
  return {};
}

}  // namespace

/// What of a range covers blocks as a whole, and what in part. The last block of a device may be
/// short, and is whole for that.
struct Overlay::Pieces {
  Pieces(Range range, std::uint64_t device_end) {
    const std::uint64_t from =
        std::min(round_up<std::uint64_t>(range.offset, kBlockBytes), range.end());
    std::uint64_t to = range.end() == device_end
                           ? device_end
                           : round_down<std::uint64_t>(range.end(), kBlockBytes);
    if (to < from) to = from;
    head = {range.offset, from - range.offset};
    whole = {from, to - from};
    tail = {to, range.end() - to};
  }
  Range head;
  Range whole;
  Range tail;
};

/// Layers, and what of them counts.
struct Overlay::Stack {
  std::shared_ptr<OverlayLayer> top;
  std::uint64_t used_blocks = 0;
};

/// Lays what was found of an overlay over the base.
Overlay::Stack Overlay::stack(std::shared_ptr<BlockDevice> below,
                              std::unique_ptr<OverlayFile> file) {
  const std::uint32_t own_from = file->header().own_from;
  std::vector<std::unique_ptr<OverlayFile>> files = file->take_below();
  files.push_back(std::move(file));
  Stack stack;
  for (std::unique_ptr<OverlayFile>& each : files) {
    const bool is_own = each->header().layer >= own_from;
    stack.top = std::make_shared<OverlayLayer>(std::move(below), std::move(each), nullptr);
    const BlockStates& states = stack.top->states();
    if (is_own) stack.used_blocks += states.count_here({0, states.blocks()});
    below = stack.top;
  }
  return stack;
}

Overlay::Overlay(std::shared_ptr<BlockDevice> below, std::shared_ptr<OverlayStore> store,
                 const Options& options)
    : Overlay(Stack{std::make_shared<OverlayLayer>(std::move(below), nullptr, std::move(store))},
              options) {}

Overlay::Overlay(std::shared_ptr<BlockDevice> below, std::unique_ptr<OverlayFile> file,
                 const Options& options)
    : Overlay(stack(std::move(below), std::move(file)), options) {}

Overlay::Overlay(Stack stack, const Options& options)
    : most_blocks_(options.most_bytes / kBlockBytes),
      geometry_(stack.top->geometry()),
      used_blocks_(stack.used_blocks),
      top_(stack.top.get()),
      layers_{std::move(stack.top)} {
  geometry_.writable = !options.read_only;
  geometry_.zeroes_fast = geometry_.writable;
}

Overlay::~Overlay() { [[maybe_unused]] const Result<void> flushed = top().flush(); }

std::uint64_t Overlay::block_bytes_at(std::uint64_t block) const noexcept {
  return std::min<std::uint64_t>(kBlockBytes, geometry_.size_bytes - block * kBlockBytes);
}

template <class Change>
Result<void> Overlay::alone(Change&& change) {
  struct Held {
    std::atomic<bool>& flag;
    ~Held() { flag = false; }
  };
  has_all_stripes_ = true;  // may_wait() says so
  const Held held{has_all_stripes_};
  std::array<std::unique_ptr<ExclusiveLock>, kStripes> locks;
  for (std::size_t i = 0; i < kStripes; ++i) {
    locks[i] = std::make_unique<ExclusiveLock>(stripes_[i]);
  }
  return change();
}

Result<std::shared_ptr<BlockDevice>> Overlay::snapshot(std::shared_ptr<OverlayStore> store) {
  const MutexLock branching(branching_);
  if (top().file() != nullptr) {
    return fail(Errc::unsupported, "what outlives its process cannot go on in what does not");
  }
  std::shared_ptr<OverlayLayer> frozen = layers_.back();
  if (frozen->geometry().overlays >= kMostLayers) {
    return fail(Errc::unsupported,
                fmt::format("it lies over {} layers already, which is the limit", kMostLayers));
  }
  Result<void> done = alone([&]() -> Result<void> {
    layers_.push_back(std::make_shared<OverlayLayer>(frozen, nullptr, std::move(store)));
    top_.store(layers_.back().get(), std::memory_order_release);
    return {};
  });
  if (!done) return propagate(done);
  return frozen;
}

Result<Overlay::Branch> Overlay::branch(const std::string& path, const std::string& origin) {
  const MutexLock branching(branching_);
  const std::shared_ptr<OverlayLayer> frozen = layers_.back();
  if (!geometry_.writable) return fail(Errc::unsupported, "what is read-only takes no snapshots");
  if (frozen->file() == nullptr) {
    return fail(Errc::unsupported, "what ends with its process cannot go on in a file");
  }
  auto snapshot = OverlaySnapshot::begin(*frozen->file(), path, origin);
  if (!snapshot) return propagate(snapshot);
  // The most of what was written, while writers go on: the less they wait.
  if (Result<void> flushed = frozen->flush(); !flushed) {
    return propagate(flushed);
  }
  const auto next = std::make_shared<OverlayLayer>(frozen, (*snapshot)->take_top(), nullptr);
  Result<void> done = alone([&]() -> Result<void> {
    Result<void> committed = (*snapshot)->commit(frozen->states());
    if (!committed) return committed;
    layers_.push_back(next);
    top_.store(next.get(), std::memory_order_release);
    return {};
  });
  if (!done) return propagate(done);
  const Options options{.most_bytes = most_blocks_ * kBlockBytes};
  return Branch{std::make_shared<Overlay>(frozen, (*snapshot)->take_child(), options),
                (*snapshot)->finish()};
}

/// Counts the blocks that will become `here` before they do, so that all writers together keep the
/// limit.
Result<void> Overlay::reserve(OverlayBlocks blocks, std::uint64_t& reserved) {
  reserved = blocks.count - top().states().count_here(blocks);
  if (used_blocks_.fetch_add(reserved, std::memory_order_relaxed) + reserved <= most_blocks_) {
    return {};
  }
  used_blocks_ -= std::exchange(reserved, 0);
  return fail(Errc::no_space,
              fmt::format("the overlay has its {} bytes already", most_blocks_ * kBlockBytes));
}

Result<void> Overlay::write(std::uint64_t offset, std::span<const std::byte> data) {
  return for_each_group({offset, data.size()}, [&](Range range) -> Result<void> {
    const Pieces pieces(range, geometry_.size_bytes);
    const auto bytes = [&](Range part) {
      return data.subspan(static_cast<std::size_t>(part.offset - offset),
                          static_cast<std::size_t>(part.length));
    };
    if (const auto done = write_part(pieces.head.offset, bytes(pieces.head)); !done) return done;
    if (const auto done = write_whole(pieces.whole.offset, bytes(pieces.whole)); !done) return done;
    return write_part(pieces.tail.offset, bytes(pieces.tail));
  });
}

Result<void> Overlay::write_whole(std::uint64_t offset, std::span<const std::byte> data) {
  if (data.empty()) return {};
  const OverlayBlocks blocks = blocks_in({offset, data.size()});
  const SharedLock lock(stripe_of(blocks.first));
  std::uint64_t reserved = 0;
  if (const Result<void> room = reserve(blocks, reserved); !room) return room;
  Result<void> written = top().store().write(offset, data);
  if (!written) {
    used_blocks_ -= reserved;
    return written;
  }
  // Others may have made some of them `here` since.
  const std::uint64_t became_here = blocks.count - top().set(blocks, BlockState::here);
  used_blocks_ -= reserved - became_here;
  return {};
}

/// Writes within one block.
Result<void> Overlay::write_part(std::uint64_t offset, std::span<const std::byte> data) {
  if (data.empty()) return {};
  const std::uint64_t block = offset / kBlockBytes;
  const std::uint64_t start = block * kBlockBytes;
  std::array<std::byte, kBlockBytes> joined;
  const auto whole = std::span(joined).first(static_cast<std::size_t>(block_bytes_at(block)));
  while (true) {
    OverlayLayer* seen = nullptr;
    bool is_below = false;
    {
      // Blocks that are here already take no joining, and only a trim ends that: it may come first.
      const SharedLock lock(stripe_of(block));
      seen = &top();
      const BlockState state = seen->states().state_at(block);
      if (state == BlockState::here) return seen->store().write(offset, data);
      is_below = state == BlockState::below;
    }
    // Without the lock: this may take long.
    if (is_below) {
      if (const Result<void> got = seen->below()->read(start, whole); !got) return got;
    }
    const ExclusiveLock lock(stripe_of(block));
    if (&top() != seen) continue;  // a snapshot has come between: the block may be below it now
    const BlockState state = seen->states().state_at(block);
    if (state == BlockState::here) return seen->store().write(offset, data);
    if (state == BlockState::zero) std::ranges::fill(whole, std::byte{0});
    std::ranges::copy(data, whole.begin() + static_cast<std::ptrdiff_t>(offset - start));
    std::uint64_t reserved = 0;
    if (const Result<void> room = reserve({block, 1}, reserved); !room) return room;
    Result<void> written = seen->store().write(start, whole);
    if (!written) {
      used_blocks_ -= reserved;
      return written;
    }
    seen->set({block, 1}, BlockState::here);
    return {};
  }
}

bool Overlay::part_may_wait(Range part) const {
  if (part.length == 0) return false;
  const std::uint64_t block = part.offset / kBlockBytes;
  const OverlayLayer& layer = top();
  return layer.states().state_at(block) == BlockState::below &&
         read_may_wait(*layer.below(), {block * kBlockBytes, block_bytes_at(block)});
}

bool Overlay::may_wait(DeviceCall call, Range range) const {
  if (call == DeviceCall::read) return top().may_wait(call, range);
  if (range.length > kLongBytes || has_all_stripes_.load(std::memory_order_relaxed)) return true;
  const FileWaits waits = top().store().waits();
  if (waits == FileWaits::possible) return true;
  const Pieces pieces(range, geometry_.size_bytes);
  if (call != DeviceCall::write && waits != FileWaits::never && pieces.whole.length > 0) {
    // To take space or to give it back, a file system may have to write first.
    if (call == DeviceCall::zero_allocated ||
        top().states().count_here(blocks_in(pieces.whole)) > 0) {
      return true;
    }
  }
  return call != DeviceCall::trim && (part_may_wait(pieces.head) || part_may_wait(pieces.tail));
}

Result<void> Overlay::zero(Range range, bool keep_allocated) {
  static constexpr std::array<std::byte, kBlockBytes> kZeroes{};
  const auto zero_part = [&](Range part) {
    return write_part(part.offset, std::span(kZeroes).first(static_cast<std::size_t>(part.length)));
  };
  return for_each_group(range, [&](Range in_group) -> Result<void> {
    const Pieces pieces(in_group, geometry_.size_bytes);
    if (const auto done = zero_part(pieces.head); !done) return done;
    if (const auto done = zero_whole(pieces.whole, keep_allocated); !done) return done;
    return zero_part(pieces.tail);
  });
}

Result<void> Overlay::trim(Range range) {
  return for_each_group(range, [&](Range in_group) {
    return zero_whole(Pieces(in_group, geometry_.size_bytes).whole, false);
  });
}

Result<void> Overlay::zero_whole(Range range, bool keep_allocated) {
  if (range.length == 0) return {};
  const OverlayBlocks blocks = blocks_in(range);
  const SharedLock lock(stripe_of(blocks.first));
  if (!keep_allocated) {
    // The state first: until the space is given back, no reader may see the old bytes under it.
    const std::uint64_t were_here = top().set(blocks, BlockState::zero);
    if (were_here > 0) top().store().discard(range);
    used_blocks_ -= were_here;
    return {};
  }
  std::uint64_t reserved = 0;
  if (const Result<void> room = reserve(blocks, reserved); !room) return room;
  Result<void> allocated = top().store().allocate_zeroes(range);
  if (!allocated) {
    used_blocks_ -= reserved;
    return allocated;
  }
  used_blocks_ -= reserved - (blocks.count - top().set(blocks, BlockState::here));
  return {};
}

}  // namespace mkvirtfs
