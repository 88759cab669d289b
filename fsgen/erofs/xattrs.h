// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::erofs {

/// The extended attributes as inodes have them, a body for each set, and those that many inodes
/// share, which stand once in an area of their own. POSIX ACLs stand as the kernel's calls give
/// them. Immutable.
class Xattrs {
 public:
  /// Errors: Errc::does_not_fit naming a file whose attributes are too big; Errc::unsupported
  /// naming an attribute whose namespace EROFS does not have.
  static Result<Xattrs> make(const SourceTree& tree);

  /// What stands behind the inodes of this set: a header, numbers of shared attributes, and the
  /// others; a multiple of 4 bytes, none for the empty set.
  std::span<const std::byte> body(XattrSetNo set) const noexcept { return bodies_[set]; }
  /// As inodes count it.
  std::uint16_t body_count(XattrSetNo set) const noexcept;
  /// The shared attributes, one behind the other; the number of each is its offset divided by 4.
  std::span<const std::byte> shared() const noexcept { return shared_; }
  std::uint32_t shared_count() const noexcept { return shared_count_; }

 private:
  class Maker;

  std::vector<std::vector<std::byte>> bodies_;
  std::vector<std::byte> shared_;
  std::uint32_t shared_count_ = 0;
};

}  // namespace mkvirtfs::erofs
