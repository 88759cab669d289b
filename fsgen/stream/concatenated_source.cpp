// SPDX-License-Identifier: BSD-3-Clause
// Where each part begins is known, so the part of an offset is a binary search; a read is split
// at their borders.
#include "fsgen/stream/concatenated_source.h"

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <utility>

namespace mkvirtfs {
namespace {

class ConcatenatedSource final : public ByteSource {
 public:
  ConcatenatedSource(std::vector<std::shared_ptr<ByteSource>> parts, std::string name)
      : parts_(std::move(parts)), name_(std::move(name)) {
    std::uint64_t end = 0;
    for (const auto& part : parts_) ends_.push_back(end += part->size_bytes());
  }

  std::uint64_t size_bytes() const noexcept override { return ends_.back(); }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override;
  Result<bool> read_at_once(std::uint64_t offset, std::span<std::byte> out) override;
  bool is_at_hand(Range range) override;
  void fetch(Range range) override;
  Result<ContentStore::Pin> pin() override {
    if (parts_.size() == 1) return parts_.front()->pin();
    return ContentStore::Pin{};
  }
  Result<void> recheck(const PinnedFile& file) override { return parts_.front()->recheck(file); }
  std::string name() const override { return name_; }

  const std::vector<std::shared_ptr<ByteSource>>& parts() const noexcept { return parts_; }

 private:
  /// Calls `visit(part, range in it)` for what of `range` lies in each, until one is false.
  template <class Visit>
  void for_each_part(Range range, Visit visit);

  const std::vector<std::shared_ptr<ByteSource>> parts_;
  std::vector<std::uint64_t> ends_;
  const std::string name_;
};

template <class Visit>
void ConcatenatedSource::for_each_part(Range range, Visit visit) {
  auto no = static_cast<std::size_t>(std::ranges::upper_bound(ends_, range.offset) - ends_.begin());
  for (; no < parts_.size() && range.length != 0; ++no) {
    const std::uint64_t begin = no == 0 ? 0 : ends_[no - 1];
    const std::uint64_t length = std::min(range.length, ends_[no] - range.offset);
    if (!visit(*parts_[no], Range{range.offset - begin, length})) return;
    range.offset += length;
    range.length -= length;
  }
}

Result<void> ConcatenatedSource::read(std::uint64_t offset, std::span<std::byte> out) {
  Result<void> done;
  for_each_part({offset, out.size()}, [&](ByteSource& part, Range range) {
    const auto length = static_cast<std::size_t>(range.length);
    done = part.read(range.offset, out.first(length));
    out = out.subspan(length);
    return done.has_value();
  });
  return done;
}

Result<bool> ConcatenatedSource::read_at_once(std::uint64_t offset, std::span<std::byte> out) {
  Result<bool> done = true;
  for_each_part({offset, out.size()}, [&](ByteSource& part, Range range) {
    const auto length = static_cast<std::size_t>(range.length);
    done = part.read_at_once(range.offset, out.first(length));
    out = out.subspan(length);
    return done.has_value() && *done;
  });
  return done;
}

bool ConcatenatedSource::is_at_hand(Range range) {
  bool all = true;
  for_each_part(range,
                [&](ByteSource& part, Range in_part) { return all = part.is_at_hand(in_part); });
  return all;
}

void ConcatenatedSource::fetch(Range range) {
  for_each_part(range, [](ByteSource& part, Range in_part) {
    part.fetch(in_part);
    return true;
  });
}

}  // namespace

std::shared_ptr<ByteSource> make_concatenation(std::vector<std::shared_ptr<ByteSource>> parts,
                                               std::string name) {
  assert(!parts.empty());
  return std::make_shared<ConcatenatedSource>(std::move(parts), std::move(name));
}

std::vector<std::shared_ptr<ByteSource>> parts_of(const ByteSource& source) {
  if (const auto* all = dynamic_cast<const ConcatenatedSource*>(&source)) return all->parts();
  return {};
}

}  // namespace mkvirtfs
