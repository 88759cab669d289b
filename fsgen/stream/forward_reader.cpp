// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/forward_reader.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace mkvirtfs {

Result<std::span<const std::byte>> ForwardReader::next() {
  given_ = {};
  if (!rest_.empty()) return given_ = std::exchange(rest_, {});
  Result<std::span<const std::byte>> more = make_more();
  if (more) given_ = *more;
  return more;
}

void ForwardReader::give_back(std::size_t count) noexcept {
  assert(count <= given_.size() && rest_.empty());
  rest_ = given_.last(count);
  given_ = {};
}

Result<std::size_t> ForwardReader::read(std::span<std::byte> out) {
  if (out.empty()) return 0;
  if (rest_.empty()) {
    const auto more = make_more();
    if (!more) return propagate(more);
    rest_ = *more;
  }
  const std::size_t count = std::min(out.size(), rest_.size());
  std::ranges::copy(rest_.first(count), out.begin());
  rest_ = rest_.subspan(count);
  return count;
}

Result<std::uint64_t> ForwardReader::skip(std::uint64_t count) {
  std::uint64_t left = count;
  while (left > 0) {
    if (rest_.empty()) {
      const auto more = make_more();
      if (!more) return propagate(more);
      if (more->empty()) break;
      rest_ = *more;
    }
    const auto step = static_cast<std::size_t>(std::min<std::uint64_t>(left, rest_.size()));
    rest_ = rest_.subspan(step);
    left -= step;
  }
  return count - left;
}

}  // namespace mkvirtfs
