// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/content.h"
#include "block/device.h"

namespace mkvirtfs::testing {

/// One host file as a ContentStore: whatever `content` is asked for, it is that file. It sees a
/// change by size and mtime, as a real store does. Tests only.
class FileStore final : public MemoryStore {
 public:
  explicit FileStore(const std::string& path)
      : path_(path),
        fd_(std::make_shared<const UniqueFd>(::open(path.c_str(), O_RDONLY | O_CLOEXEC))) {
    assert(*fd_);
    planned_ = look();
  }

  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override {
    ++reads;
    while (!out.empty()) {
      const ssize_t count = ::pread(fd_->get(), out.data(), out.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return changed();
      out = out.subspan(static_cast<std::size_t>(count));
      offset += static_cast<std::uint64_t>(count);
    }
    return recheck(content, PinnedFile(fd_));
  }

  Result<Pin> pin(ContentNo) override {
    ++pins;
    if (!pinnable) return Pin{};
    if (look() != planned_) return changed();
    return Pin{PinnedFile(fd_), 0};
  }

  Result<void> recheck(ContentNo, const PinnedFile&) override {
    if (look() != planned_) return changed();
    return {};
  }

  std::string name(ContentNo) const override { return path_; }

  std::uint64_t size_bytes() const noexcept { return planned_.size; }

  // What the tests turn and read; set before the server runs.
  bool pinnable = true;
  std::atomic<int> reads = 0;
  std::atomic<int> pins = 0;

 private:
  struct State {
    std::uint64_t size = 0;
    std::int64_t seconds = 0;
    std::int64_t nanoseconds = 0;
    friend bool operator==(const State&, const State&) = default;
  };
  State look() const {
    struct stat status{};
    ::fstat(fd_->get(), &status);
    return {static_cast<std::uint64_t>(status.st_size), status.st_mtim.tv_sec,
            status.st_mtim.tv_nsec};
  }
  std::unexpected<Error> changed() const {
    return fail(Errc::source_changed, fmt::format("{} changed since it was scanned", path_));
  }

  std::string path_;
  std::shared_ptr<const UniqueFd> fd_;
  State planned_;
};

/// A device made of the extents that a test lists, one behind the other. Computed bytes are a
/// function of their offset. Tests only.
class ExtentDevice final : public BlockDevice {
 public:
  static std::byte computed_byte(std::uint64_t offset) {
    return static_cast<std::byte>((offset * 3 + offset / 1000 + 1) & 0xFF);
  }

  ExtentDevice& hole(std::uint64_t length) {
    return append(ExtentKind::hole, length, [](Extent&) {});
  }
  ExtentDevice& computed(std::uint64_t length) {
    return append(ExtentKind::computed, length, [](Extent&) {});
  }
  ExtentDevice& memory(std::vector<std::byte> bytes) {
    memory_.push_back(std::move(bytes));
    return append(ExtentKind::memory, memory_.back().size(),
                  [&](Extent& extent) { extent.memory = memory_.back().data(); });
  }
  ExtentDevice& content(std::shared_ptr<ContentStore> store, ContentNo file, std::uint64_t offset,
                        std::uint64_t length) {
    stores_.push_back(std::move(store));
    return append(ExtentKind::content, length, [&](Extent& extent) {
      extent.store = stores_.back().get();
      extent.content = file;
      extent.content_offset = offset;
    });
  }
  ExtentDevice& block_bytes(std::uint32_t bytes) {
    geometry_.preferred_block_bytes = bytes;
    return *this;
  }

  const Geometry& geometry() const noexcept override { return geometry_; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    Result<void> result;
    for_each_extent(*this, {offset, out.size()}, [&](const Extent& extent) {
      const auto part = out.subspan(extent.offset - offset, extent.length);
      switch (extent.kind) {
        case ExtentKind::hole:
          std::ranges::fill(part, std::byte{0});
          break;
        case ExtentKind::memory:
          std::copy_n(extent.memory, part.size(), part.begin());
          break;
        case ExtentKind::computed:
        case ExtentKind::derived:
          for (std::size_t i = 0; i < part.size(); ++i) part[i] = computed_byte(extent.offset + i);
          break;
        case ExtentKind::content:
          result = extent.store->read(extent.content, extent.content_offset, part);
          break;
      }
      return result.has_value();
    });
    return result;
  }

  bool may_wait(DeviceCall, Range) const override { return false; }

  void map(Range range, ExtentSink& sink) const override {
    assert(range.offset <= geometry_.size_bytes &&
           range.length <= geometry_.size_bytes - range.offset);
    if (range.length == 0) return;
    const auto first = std::ranges::upper_bound(extents_, range.offset, {}, &Extent::end);
    for (auto at = first; at != extents_.end() && at->offset < range.end(); ++at) {
      if (!sink.extent(at->clipped(range.offset, range.end()))) return;
    }
  }

 private:
  template <class Fill>
  ExtentDevice& append(ExtentKind kind, std::uint64_t length, Fill&& fill) {
    Extent extent;
    extent.offset = geometry_.size_bytes;
    extent.length = length;
    extent.kind = kind;
    fill(extent);
    if (length > 0) extents_.push_back(extent);
    geometry_.size_bytes += length;
    return *this;
  }

  Geometry geometry_;
  std::vector<Extent> extents_;
  std::vector<std::vector<std::byte>> memory_;  // moving a vector leaves its bytes in place
  std::vector<std::shared_ptr<ContentStore>> stores_;
};

}  // namespace mkvirtfs::testing
