// SPDX-License-Identifier: BSD-3-Clause
//
// Only files of equal size can be equal: those that share their size with another are read and
// digested, the others are not.
#include "fsgen/image/duplicates.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "support/sha256.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kPieceBytes = 1 << 18;
using Digest = std::array<std::byte, 32>;

struct Digested {
  Digest digest;
  NodeNo node;
  auto operator<=>(const Digested&) const = default;
};

/// Of the bytes of a file; holes are not read.
Result<Digest> digest_of(const SourceTree& tree, NodeNo no, ContentStore& store,
                         std::span<std::byte> buffer) {
  Sha256 digest;
  const auto zeroes = [&](std::uint64_t length) {
    std::ranges::fill(buffer, std::byte{0});
    for (; length > 0; length -= std::min<std::uint64_t>(length, buffer.size())) {
      digest.update(buffer.first(std::min<std::uint64_t>(length, buffer.size())));
    }
  };
  std::uint64_t at = 0;
  Range dense;
  for (const Range& run : tree.data_runs(no, dense)) {
    zeroes(run.offset - at);
    for (at = run.offset; at < run.end();) {
      const auto piece = buffer.first(std::min<std::uint64_t>(run.end() - at, buffer.size()));
      Result<void> read = store.read(content_no(no), at, piece);
      if (!read) return propagate(read);
      digest.update(piece);
      at += piece.size();
    }
  }
  zeroes(tree.node(no).size_bytes - at);
  return digest.finish();
}

}  // namespace

Result<std::vector<Duplicate>> find_duplicates(const SourceTree& tree, ContentStore& store) {
  std::vector<std::pair<std::uint64_t, NodeNo>> by_size;
  for (NodeNo no; no < tree.node_count(); ++no) {
    const Node& node = tree.node(no);
    if (node.is_regular() && node.size_bytes != 0) by_size.emplace_back(node.size_bytes, no);
  }
  std::ranges::sort(by_size);

  std::vector<Duplicate> duplicates;
  std::vector<std::byte> buffer(kPieceBytes);
  std::vector<Digested> alike;
  for (std::size_t first = 0; first < by_size.size();) {
    std::size_t end = first + 1;
    while (end < by_size.size() && by_size[end].first == by_size[first].first) ++end;
    alike.clear();
    for (std::size_t at = first; at < end && end - first > 1; ++at) {
      const Result<Digest> digest = digest_of(tree, by_size[at].second, store, buffer);
      if (!digest) return propagate(digest);
      alike.push_back({*digest, by_size[at].second});
    }
    std::ranges::sort(alike);
    for (std::size_t at = 0, original = 0; at < alike.size(); ++at) {
      if (alike[at].digest != alike[original].digest) original = at;
      if (at != original) duplicates.push_back({alike[at].node, alike[original].node});
    }
    first = end;
  }
  std::ranges::sort(duplicates, {}, &Duplicate::node);
  return duplicates;
}

}  // namespace mkvirtfs
