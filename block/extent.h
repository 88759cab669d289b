// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace mkvirtfs {

class ContentStore;

/// Names one file's bytes inside a ContentStore. For a SourceTree's store it is the node number.
enum class ContentNo : std::uint32_t {};

/// `length` bytes from `offset`.
struct Range {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  constexpr std::uint64_t end() const noexcept { return offset + length; }
  friend bool operator==(const Range&, const Range&) = default;
};

/// Where the bytes of one stretch of a device live.
enum class ExtentKind : std::uint8_t {
  hole,      ///< zeroes that nobody stores
  memory,    ///< at `memory`, for as long as the device lives
  computed,  ///< made when they are read: ask the device's read()
  content,   ///< in a file: bytes of `content` from `content_offset`
  derived,   ///< made of bytes of files when they are read: like `computed`, but the read may wait,
             ///< and fail as reads of files do
};

/// One stretch of a device whose bytes come from one place. Never empty.
struct Extent {
  std::uint64_t offset = 0;  ///< in the device that was asked
  std::uint64_t length = 0;
  ExtentKind kind = ExtentKind::hole;
  const std::byte* memory = nullptr;  ///< kind memory only
  ContentStore* store = nullptr;      ///< kind content only; lives as long as the device
  ContentNo content{};                ///< kind content only
  std::uint64_t content_offset = 0;   ///< kind content only
  /// How many overlays lie between the device that was asked and the one that holds this.
  std::uint16_t layer = 0;

  constexpr std::uint64_t end() const noexcept { return offset + length; }
  /// Nobody but the device's read() has the bytes, which makes them.
  constexpr bool is_made() const noexcept {
    return kind == ExtentKind::computed || kind == ExtentKind::derived;
  }

  /// The part of this extent that lies in [from, to); the caller knows that the two overlap.
  constexpr Extent clipped(std::uint64_t from, std::uint64_t to) const noexcept {
    Extent part = *this;
    const std::uint64_t skip = from > offset ? from - offset : 0;
    part.offset += skip;
    part.length = (to < end() ? to : end()) - part.offset;
    if (part.memory != nullptr) part.memory += skip;
    part.content_offset += skip;
    return part;
  }
};

/// Receives the extents of a map in order, gapless and without overlap.
class ExtentSink {
 public:
  /// Returns false to stop the walk early.
  virtual bool extent(const Extent& extent) = 0;

 protected:
  ~ExtentSink() = default;
};

/// Makes an ExtentSink of a callable `bool(const Extent&)`; no allocation.
template <class Callable>
class CallableSink final : public ExtentSink {
 public:
  explicit CallableSink(Callable& callable) : callable_(callable) {}
  bool extent(const Extent& extent) override { return callable_(extent); }

 private:
  Callable& callable_;
};

/// Calls `visit(const Extent&) -> bool` for each extent of `range`, as `mapped.map()` has them.
template <class Mapped, class Visit>
void for_each_extent(const Mapped& mapped, Range range, Visit&& visit) {
  CallableSink<std::remove_reference_t<Visit>> sink(visit);
  mapped.map(range, sink);
}

}  // namespace mkvirtfs
