// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block/device.h"
#include "block/overlay/block_states.h"
#include "block/overlay/file.h"
#include "block/overlay/layer.h"
#include "block/overlay/store.h"
#include "support/error.h"
#include "support/mutex.h"

namespace mkvirtfs {

/// A writable device over one that is only read: what is written stays here, and everything else is
/// the other's.
///
/// Each block of 4 KiB is in one of three states (BlockState): `below`, `here` or `zero`. Writes of
/// whole blocks never look at the device below; what covers a block in part copies the rest of it
/// up, if it was below. Zeroes and trims set `zero` and give the space back. Reads and the map of
/// what is below are the device's own, with its file runs and its holes.
///
/// Locks. Writers of whole blocks, zeroes and trims hold the stripe of their 2 MiB shared, so that
/// any number of them go on at once; copying up holds it alone while it joins and writes a block,
/// but not while it reads what is below, which never changes; a snapshot holds all of them, in
/// ascending order. A change of state comes behind the write of the bytes that it vouches for.
/// Below the stripe stands only the lock inside BlockStates. Readers and map() take that one alone:
/// a read beside a write of the same bytes sees the old or the new ones, as the protocol allows.
///
/// A lack of space (of the host, or of `most_bytes`) is Errc::no_space to write(), zero(), trim()
/// and flush(): clients stop then, and go on when there is space again. What was written before
/// stays as it is.
///
/// Crashes: what is temporary is gone; for what is not, see OverlayFile. States go to the disk at
/// flush() alone, always behind the bytes that they vouch for; the space that a trim gives back
/// may be gone before, and reads as the zeroes that were asked for.
///
/// Any method, any thread.
class Overlay final : public BlockDevice {
 public:
  static constexpr std::uint32_t kBlockBytes = OverlayLayer::kBlockBytes;
  /// Each layer costs every read a look; a chain of more is refused.
  static constexpr std::uint16_t kMostLayers = OverlayHeader::kMostLayers;

  struct Options {
    /// The most that blocks written here may take.
    std::uint64_t most_bytes = std::numeric_limits<std::uint64_t>::max();
    /// Of OverlayFile::open_read_only().
    bool read_only = false;
  };

  /// Nothing written yet. The store has the size of `below`.
  Overlay(std::shared_ptr<BlockDevice> below, std::shared_ptr<OverlayStore> store,
          const Options& options);
  /// One that outlives the process, with what was written to it and its layers before.
  Overlay(std::shared_ptr<BlockDevice> below, std::unique_ptr<OverlayFile> file,
          const Options& options);
  /// Flushes an overlay that outlives the process, and ignores a failure: call flush() before to
  /// learn of one.
  ~Overlay() override;

  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    return top().read(offset, out);
  }
  void map(Range range, ExtentSink& sink) const override { top().map(range, sink); }
  /// Writes, zeroes and trims wait for the device below, where they copy up a block that is not at
  /// hand there; for a file system that may wait; for a snapshot; and what is long takes long.
  bool may_wait(DeviceCall call, Range range) const override;
  Result<void> write(std::uint64_t offset, std::span<const std::byte> data) override;
  Result<void> zero(Range range, bool keep_allocated) override;
  /// Of whole blocks: the parts of others stay as they are.
  Result<void> trim(Range range) override;
  /// See OverlayFile. What is temporary is lost with the process anyway, and costs nothing here.
  Result<void> flush() override { return top().flush(); }

  /// Freezes what it holds now, and goes on with `store`, in which nothing is written yet. The
  /// frozen device never changes: others may lie over it. Writes that are under way fall on either
  /// side. Errc::unsupported for one that outlives its process, and for too many layers.
  Result<std::shared_ptr<BlockDevice>> snapshot(std::shared_ptr<OverlayStore> store);

  struct Branch {
    std::shared_ptr<Overlay> overlay;
    /// A failure says that the files have not got their names yet, which the next program that
    /// opens them gives them: nothing is lost.
    Result<void> named;
  };
  /// The same of one that outlives its process, with a new overlay over the frozen device that does
  /// so, too, in a file at `path`, where nothing is yet. `origin`: see OverlayHeader. Writers wait
  /// while what they wrote goes to the disk. See OverlaySnapshot for crashes; after a failure this
  /// overlay goes on as before, or, where what is on the disk is unknown, flushes no more.
  Result<Branch> branch(const std::string& path, const std::string& origin);

  /// What blocks that are `here` take, in all its layers that no other began with.
  std::uint64_t used_bytes() const noexcept { return used_blocks_.load() * kBlockBytes; }
  /// What was written since it was made, or since the last snapshot.
  const OverlayLayer& layer() const noexcept { return top(); }

 private:
  // A snapshot holds all of them, and ThreadSanitizer follows 64 locks of a thread at most.
  static constexpr std::size_t kStripes = 32;

  struct Stack;
  static Stack stack(std::shared_ptr<BlockDevice> below, std::unique_ptr<OverlayFile> file);
  Overlay(Stack stack, const Options& options);

  /// Calls `change` while no write is under way.
  template <class Change>
  Result<void> alone(Change&& change);
  OverlayLayer& top() const noexcept { return *top_.load(std::memory_order_acquire); }
  SharedMutex& stripe_of(std::uint64_t block) noexcept {
    return stripes_[block / BlockStates::kGroupBlocks % kStripes];
  }
  std::uint64_t block_bytes_at(std::uint64_t block) const noexcept;
  Result<void> reserve(OverlayBlocks blocks, std::uint64_t& reserved);
  Result<void> write_whole(std::uint64_t offset, std::span<const std::byte> data);
  Result<void> write_part(std::uint64_t offset, std::span<const std::byte> data);
  /// Whether write_part() to this range, which lies in one block, may have to wait.
  bool part_may_wait(Range part) const;
  Result<void> zero_whole(Range range, bool keep_allocated);

  /// A range inside one group of blocks, in whole ones and a part of one before and behind them.
  struct Pieces;

  const std::uint64_t most_blocks_;
  Geometry geometry_;
  std::atomic<std::uint64_t> used_blocks_ = 0;
  std::array<SharedMutex, kStripes> stripes_;
  Mutex branching_;                            // one snapshot at a time, and before the stripes
  std::atomic<bool> has_all_stripes_ = false;  // or is about to: a snapshot is being made
  /// Changed with all stripes held. What was on top once stays as long as this: readers hold it
  /// without a lock.
  std::atomic<OverlayLayer*> top_;
  std::vector<std::shared_ptr<OverlayLayer>> layers_;
};

}  // namespace mkvirtfs
