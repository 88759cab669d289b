// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "block/extent.h"
#include "support/error.h"

namespace mkvirtfs {

/// The shape of a device: constant for its whole life.
struct Geometry {
  std::uint64_t size_bytes = 0;
  /// Requests begin and end at multiples of this, a power of two of at most 65536; so do the size
  /// and the extents. Clients are told, and refused other requests.
  std::uint32_t minimum_block_bytes = 1;
  /// A client that aligns to this, a power of two not below the minimum, is served best.
  std::uint32_t preferred_block_bytes = 4096;
  bool writable = false;
  /// zero() is never slower than writing zeroes would be.
  bool zeroes_fast = false;
  /// How many overlays lie above the device that nobody writes: see Extent::layer.
  std::uint16_t overlays = 0;
};

/// What a device is asked, as far as it may take waiting.
enum class DeviceCall : std::uint8_t {
  read,            ///< read() of what map() calls `computed` or `derived`
  write,           ///< write()
  zero,            ///< zero()
  zero_allocated,  ///< zero() with `keep_allocated`
  trim,            ///< trim()
};

/// Random-access bytes, as an NBD client or a dump sees them.
///
/// Callers keep every range inside geometry().size_bytes; implementations may assert it (law 7: the
/// client is checked once, before it gets here). Every method may run on several threads at once.
class BlockDevice {
 public:
  virtual ~BlockDevice() = default;

  virtual const Geometry& geometry() const noexcept = 0;

  /// Fills all of `out` from `offset`, or fails and leaves `out` unspecified. Never short.
  virtual Result<void> read(std::uint64_t offset, std::span<std::byte> out) = 0;

  /// Reports to `sink` where each byte of `range` lives: in order, gapless, exactly covering it
  /// unless the sink stops. Answered from memory: no host I/O. Extents may end at any byte, not
  /// only at blocks.
  virtual void map(Range range, ExtentSink& sink) const = 0;

  /// Whether a call for this range may have to wait: for a disk, another machine, or a lock that
  /// somebody holds while waiting. Such calls are made on threads that nobody else needs. A good
  /// guess that is cheap: from memory, without an allocation. `content` extents are not asked about
  /// here: their store says it. True is right for every device; where a call only computes or moves
  /// memory, false saves the way to another thread.
  virtual bool may_wait(DeviceCall call, Range range) const;

  // A read-only device (geometry().writable is false) is never asked these; the defaults refuse.
  virtual Result<void> write(std::uint64_t offset, std::span<const std::byte> data);
  /// Makes `range` read as zeroes; `keep_allocated` asks that later writes there cannot lack
  /// space.
  virtual Result<void> zero(Range range, bool keep_allocated);
  virtual Result<void> trim(Range range);
  /// Everything written before the call is on stable storage when it returns.
  virtual Result<void> flush();

 protected:
  BlockDevice() = default;
  BlockDevice(const BlockDevice&) = default;
  BlockDevice& operator=(const BlockDevice&) = default;
};

}  // namespace mkvirtfs
