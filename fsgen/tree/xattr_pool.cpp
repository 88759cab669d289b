// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/xattr_pool.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "support/arithmetic.h"

namespace mkvirtfs {
namespace {

std::size_t hash_of(const std::vector<Xattr>& set) noexcept {
  std::size_t hash = 0xcbf29ce484222325;
  const auto mix = [&](std::string_view text) {
    hash = (hash ^ std::hash<std::string_view>{}(text)) * 0x100000001b3;
  };
  for (const Xattr& xattr : set) {
    mix(xattr.name);
    mix(xattr.value);
  }
  return hash;
}

}  // namespace

XattrSetNo XattrPool::intern(std::vector<Xattr> set) {
  if (set.empty()) return 0;
  std::ranges::sort(set);
  const std::size_t hash = hash_of(set);
  const auto [first, last] = by_hash_.equal_range(hash);
  for (auto known = first; known != last; ++known) {
    if (sets_[known->second] == set) return known->second;
  }
  const auto no = narrow<XattrSetNo>(sets_.size());
  sets_.push_back(std::move(set));
  by_hash_.emplace(hash, no);
  return no;
}

}  // namespace mkvirtfs
