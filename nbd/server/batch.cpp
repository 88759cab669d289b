// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/batch.h"

#include <algorithm>
#include <utility>

namespace mkvirtfs::nbd {

std::span<std::byte> Batch::extend(std::size_t count) {
  assert(!file_);
  if (count == 0) return {};
  if (capacity_ - used_ < count) {
    const std::size_t larger = std::max({used_ + count, capacity_ * 2, std::size_t{4096}});
    auto buffer = std::make_unique_for_overwrite<std::byte[]>(larger);
    std::copy_n(buffer_.get(), used_, buffer.get());
    buffer_ = std::move(buffer);
    capacity_ = larger;
  }
  // Owned bytes lie one behind the other, so neighbours are one segment.
  if (segments_.empty() || segments_.back().borrowed != nullptr) {
    segments_.push_back({nullptr, used_, 0});
  }
  segments_.back().length += count;
  const std::span<std::byte> added(buffer_.get() + used_, count);
  used_ += count;
  total_ += count;
  return added;
}

void Batch::append(std::span<const std::byte> bytes) {
  std::ranges::copy(bytes, extend(bytes.size()).begin());
}

void Batch::borrow(std::span<const std::byte> bytes) {
  assert(!file_);
  if (bytes.empty()) return;
  segments_.push_back({bytes.data(), 0, bytes.size()});
  total_ += bytes.size();
}

void Batch::set_file(FileRun run) {
  assert(!file_ && run.length > 0 && run.file);
  file_ = std::move(run);
}

void Batch::rewind(const Mark& mark) {
  assert(mark.segments <= segments_.size() && mark.used <= used_);
  file_.reset();
  segments_.resize(mark.segments);
  used_ = mark.used;
  total_ = mark.total;
  // The last segment kept may have grown since: owned ones end at the mark.
  if (!segments_.empty() && segments_.back().borrowed == nullptr) {
    segments_.back().length = used_ - segments_.back().owned_at;
  }
}

std::span<std::byte> Batch::owned_at(const Mark& mark, std::size_t count) noexcept {
  assert(mark.used + count <= used_);
  return {buffer_.get() + mark.used, count};
}

void Batch::clear() noexcept {
  segments_.clear();
  file_.reset();
  used_ = 0;
  total_ = 0;
}

void Batch::release() noexcept {
  clear();
  buffer_.reset();
  capacity_ = 0;
}

void Batch::gather(std::vector<iovec>& out) const {
  for (const Segment& segment : segments_) {
    const std::byte* from =
        segment.borrowed != nullptr ? segment.borrowed : buffer_.get() + segment.owned_at;
    // sendmsg only reads; iovec has no const form.
    out.push_back({const_cast<std::byte*>(from), segment.length});
  }
}

}  // namespace mkvirtfs::nbd
