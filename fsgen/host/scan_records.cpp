// SPDX-License-Identifier: BSD-3-Clause
// A record is a fixed head, then the parts that its flags announce, then the name, padded to
// words. Finished segments are copied into memory from mmap(2), sorted by name, so that it can be
// given back piece by piece.
#include "fsgen/host/scan_records.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs {
namespace {

// Large enough that the calls for it do not count, small enough that it is soon free again: the
// records of some fifteen thousand files. What of it is never touched costs nothing.
constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
constexpr std::size_t kWord = sizeof(std::uint64_t);

static_assert(sizeof(Range) == 2 * kWord);
static_assert(sizeof(FileFacts) % kWord == 0);

/// A pointer as it lies in a record: in a whole word.
struct alignas(kWord) DirectoryWord {
  ScannedDirectory* directory;
};

std::uint64_t prefix_of(std::string_view name) noexcept {
  std::uint64_t prefix = 0;
  std::memcpy(&prefix, name.data(), std::min(name.size(), sizeof prefix));
  return to_be(prefix);
}

}  // namespace

// Behind the head come, each only when the head says so: the device of a linked file, the number of
// a device node, the ScannedDirectory, the data runs, the facts (all in whole words); then the name
// and the target, then padding to a word.

template <class T>
T ScanRecord::load(std::size_t at) const noexcept {
  T value;
  std::memcpy(&value, at_ + at, sizeof value);
  return value;
}

std::size_t ScanRecord::words_before_text() const noexcept {
  const ScanRecordHead& fixed = head();
  std::size_t words = fixed.linked ? 1 : 0;
  if (S_ISCHR(fixed.mode) || S_ISBLK(fixed.mode) || S_ISDIR(fixed.mode)) ++words;
  if (fixed.sparse) words += std::size_t{2} * fixed.extra_count;
  if (fixed.has_facts) words += sizeof(FileFacts) / kWord;
  return words;
}

std::string_view ScanRecord::name() const noexcept {
  const std::byte* text = at_ + sizeof(ScanRecordHead) + words_before_text() * kWord;
  return {reinterpret_cast<const char*>(text), head().name_bytes};
}

std::uint64_t ScanRecord::device() const noexcept {
  return head().linked ? load<std::uint64_t>(sizeof(ScanRecordHead)) : 0;
}

DeviceNumber ScanRecord::device_number() const noexcept {
  if (!S_ISCHR(head().mode) && !S_ISBLK(head().mode)) return {};
  return load<DeviceNumber>(sizeof(ScanRecordHead) + (head().linked ? kWord : 0));
}

ScannedDirectory* ScanRecord::directory() const noexcept {
  if (!S_ISDIR(head().mode)) return nullptr;
  return load<DirectoryWord>(sizeof(ScanRecordHead)).directory;
}

std::span<const Range> ScanRecord::data_runs() const noexcept {
  if (!head().sparse) return {};
  const std::byte* first = at_ + sizeof(ScanRecordHead) + (head().linked ? kWord : 0);
  return {reinterpret_cast<const Range*>(first), head().extra_count};
}

std::string_view ScanRecord::target() const noexcept {
  if (!S_ISLNK(head().mode)) return {};
  return {name().data() + head().name_bytes, head().extra_count};
}

std::optional<FileFacts> ScanRecord::facts() const noexcept {
  if (!head().has_facts) return std::nullopt;
  return load<FileFacts>(sizeof(ScanRecordHead) + words_before_text() * kWord - sizeof(FileFacts));
}

std::size_t ScanRecord::size_bytes() const noexcept {
  const std::size_t text = head().name_bytes + (S_ISLNK(head().mode) ? head().extra_count : 0);
  return sizeof(ScanRecordHead) + words_before_text() * kWord + round_up(text, kWord);
}

ScanRecordMemory::ScanRecordMemory(std::size_t size_bytes) {
  void* at =
      ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  bytes_ = {static_cast<std::byte*>(at), size_bytes};
}

ScanRecordMemory::~ScanRecordMemory() { ::munmap(bytes_.data(), bytes_.size()); }

template <class T>
void ScanSegmentBuilder::append(const T& value) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  records_.insert(records_.end(), bytes, bytes + sizeof value);
}

void ScanSegmentBuilder::append_text(std::string_view text) {
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  records_.insert(records_.end(), bytes, bytes + text.size());
}

void ScanSegmentBuilder::add(ScanRecordHead head, const ScanRecordTail& tail) {
  head.name_bytes = narrow<std::uint8_t>(tail.name.size());
  head.extra_count =
      narrow<std::uint32_t>(head.sparse ? tail.data_runs.size() : tail.target.size());
  offsets_.push_back({prefix_of(tail.name), records_.size()});
  append(head);
  if (head.linked) append(tail.device);
  if (S_ISCHR(head.mode) || S_ISBLK(head.mode)) append(tail.device_number);
  if (S_ISDIR(head.mode)) append(DirectoryWord{tail.directory});
  if (head.sparse) {
    for (const Range& run : tail.data_runs) append(run);
  }
  if (head.has_facts) append(tail.facts);
  append_text(tail.name);
  append_text(tail.target);
  records_.resize(round_up(records_.size(), kWord));
}

ScanSegment ScanSegmentBuilder::finish(std::uint32_t worker) {
  const auto record = [&](const Place& place) {
    return ScanRecord(records_.data() + place.offset);
  };
  std::ranges::sort(offsets_, [&](const Place& a, const Place& b) {
    return a.prefix != b.prefix ? a.prefix < b.prefix : record(a).name() < record(b).name();
  });

  if (!chunk_ || chunk_->bytes().size() - chunk_used_ < records_.size()) {
    chunk_ = std::make_shared<ScanRecordMemory>(std::max(kChunkBytes, records_.size()));
    chunk_used_ = 0;
  }
  std::byte* to = chunk_->bytes().data() + chunk_used_;
  const ScanSegment segment{chunk_, to, narrow<std::uint32_t>(offsets_.size()), worker};
  for (const Place& place : offsets_) {
    const ScanRecord from = record(place);
    std::memcpy(to, from.data(), from.size_bytes());
    if (ScannedDirectory* directory = ScanRecord(to).directory()) directory->record = to;
    to += from.size_bytes();
  }
  chunk_used_ += records_.size();
  records_.clear();
  offsets_.clear();
  return segment;
}

}  // namespace mkvirtfs
