// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mkvirtfs {

/// An extended attribute under its full name ("user.comment", "system.posix_acl_access"), value as
/// the kernel's xattr calls give it.
struct Xattr {
  std::string name;
  std::string value;

  friend auto operator<=>(const Xattr&, const Xattr&) = default;
};

/// Index of an interned set of extended attributes; 0 is the empty set.
using XattrSetNo = std::uint32_t;

/// Keeps each set of extended attributes once: a million files with one SELinux label cost one set.
/// Not thread-safe.
class XattrPool {
 public:
  XattrPool() : sets_(1) {}

  /// Attributes in any order; sets that are equal share one number, new ones are counted up.
  XattrSetNo intern(std::vector<Xattr> set);

  std::size_t size() const noexcept { return sets_.size(); }
  /// Gives the sets away, each sorted by name; the pool is at its end.
  std::vector<std::vector<Xattr>> take() && { return std::move(sets_); }

 private:
  std::vector<std::vector<Xattr>> sets_;
  std::unordered_multimap<std::size_t, XattrSetNo> by_hash_;
};

}  // namespace mkvirtfs
