// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/memory_contents.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs {
namespace {

/// The finaliser of SplitMix64: every bit of the input reaches every bit of the output.
std::uint64_t mixed(std::uint64_t value) noexcept {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

/// Eight patterned bytes; the low bit of each is set, so that none is zero.
std::uint64_t pattern_word(std::uint64_t seed, std::uint64_t word_no) noexcept {
  return to_le(mixed(seed + word_no * 0x9e3779b97f4a7c15) | 0x0101010101010101);
}

}  // namespace

void fill_pattern(std::string_view path, std::uint64_t offset, std::span<std::byte> out) noexcept {
  std::uint64_t seed = 0xcbf29ce484222325;  // FNV-1a: the same on every host, unlike std::hash
  for (const char c : path) seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001b3;

  while (!out.empty()) {
    const std::uint64_t word = pattern_word(seed, offset / sizeof word);
    const std::size_t skip = offset % sizeof word;
    const std::size_t count = std::min(sizeof word - skip, out.size());
    std::memcpy(out.data(), reinterpret_cast<const std::byte*>(&word) + skip, count);
    out = out.subspan(count);
    offset += count;
  }
}

Result<void> MemoryContents::read(ContentNo content, std::uint64_t offset,
                                  std::span<std::byte> out) {
  const auto no = node_no(content);
  assert(no < tree_->node_count() && tree_->node(no).is_regular());
  assert(offset <= tree_->node(no).size_bytes && out.size() <= tree_->node(no).size_bytes - offset);
  if (out.empty()) return {};
  if (const auto literal = literals_.find(no); literal != literals_.end()) {
    std::memcpy(out.data(), literal->second.data() + offset, out.size());
    return {};
  }
  const std::string path = tree_->path(no);
  const std::uint64_t end = offset + out.size();
  std::ranges::fill(out, std::byte{0});
  Range dense;
  const std::span<const Range> runs = tree_->data_runs(no, dense);
  for (auto run = std::ranges::upper_bound(runs, offset, {}, &Range::end);
       run != runs.end() && run->offset < end; ++run) {
    const std::uint64_t from = std::max(run->offset, offset);
    const std::uint64_t to = std::min(run->end(), end);
    fill_pattern(path, from, out.subspan(from - offset, to - from));
  }
  return {};
}

std::string MemoryContents::name(ContentNo content) const { return tree_->path(node_no(content)); }

}  // namespace mkvirtfs
