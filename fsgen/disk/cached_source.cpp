// SPDX-License-Identifier: BSD-3-Clause
// Lines of a fixed length, the older half of which is given up when there are too many.
#include "fsgen/disk/cached_source.h"

#include <algorithm>
#include <cassert>

namespace mkvirtfs::disk {

Result<const CachedSource::Line*> CachedSource::line(std::uint64_t number) {
  if (const auto known = lines_.find(number); known != lines_.end()) {
    known->second.last_use = ++clock_;
    return &known->second;
  }
  if (lines_.size() >= kMostLines) {
    const std::uint64_t oldest = clock_ - std::min<std::uint64_t>(clock_, kMostLines / 2);
    std::erase_if(lines_, [&](const auto& each) { return each.second.last_use <= oldest; });
    if (lines_.size() >= kMostLines) lines_.clear();
  }
  const std::uint64_t at = number * kLineBytes;
  Line made;
  made.bytes.resize(static_cast<std::size_t>(std::min(kLineBytes, size_bytes() - at)));
  if (Result<void> good = below_->read(at, made.bytes); !good) return propagate(good);
  made.last_use = ++clock_;
  return &lines_.insert_or_assign(number, std::move(made)).first->second;
}

Result<void> CachedSource::read(std::uint64_t offset, std::span<std::byte> out) {
  assert(holds(offset, out.size()));
  while (!out.empty()) {
    const Result<const Line*> found = line(offset / kLineBytes);
    if (!found) return propagate(found);
    const auto in = static_cast<std::size_t>(offset % kLineBytes);
    const std::size_t count = std::min(out.size(), (*found)->bytes.size() - in);
    std::copy_n((*found)->bytes.begin() + static_cast<std::ptrdiff_t>(in), count, out.begin());
    out = out.subspan(count);
    offset += count;
  }
  return {};
}

}  // namespace mkvirtfs::disk
