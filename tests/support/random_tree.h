// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rapidcheck.h>

#include <cstddef>
#include <cstdint>
#include <iosfwd>

#include "fsgen/tree/tree_builder.h"

namespace mkvirtfs::testing {

/// What a random tree may hold. The defaults are what every ext2/3/4 with 1 KiB blocks can take,
/// and what a privileged user can make on a Linux host, so that a scan shows the same tree again.
struct RandomTreeOptions {
  /// Multiplies rapidcheck's size: about so many entries at most, a crowd aside.
  double scale = 1.0;
  /// Entries of a directory that is huge now and then; 0: none.
  std::size_t most_in_a_crowd = 3000;
  std::uint64_t most_file_bytes = std::uint64_t{1} << 21;
  /// Of sparse files, holes included.
  std::uint64_t most_sparse_bytes = std::uint64_t{6} << 30;
  std::size_t most_data_runs = 40;
  /// Data runs begin, and end unless at the file's end, at multiples of this.
  std::uint64_t run_unit_bytes = 4096;
  bool xattrs = true;
  std::size_t most_xattr_bytes = 600;  ///< of all names and values of one node together
  bool devices = true;
  std::size_t most_symlink_bytes = 1000;
  std::size_t most_name_bytes = 255;
  /// Of a whole path; the default leaves simple tools a chance, PATH_MAX is 4096.
  std::size_t most_path_bytes = 3000;
};

/// A TreeBuilder that can be shown (as a listing, which TreeBuilder::parse() takes).
struct RandomTree {
  TreeBuilder builder;

  BuiltTree build() const { return builder.build(); }
  /// With the data of some files in a random order, of others in numbering order; 0: of all.
  BuiltTree build_in_order(std::uint32_t seed) const;
};
std::ostream& operator<<(std::ostream& out, const RandomTree& tree);

/// Trees with all that is legal and rarely tried: names of any bytes and up to 255 of them, crowds,
/// sparse files, hard links of everything but directories, symlinks around 59 bytes, device numbers
/// beyond 8 bits, ids beyond 16 bits, attributes, ACLs and capabilities, times before 1970 and
/// after 2038 and 2106. Shrinks by leaving out entries.
rc::Gen<RandomTree> random_tree(const RandomTreeOptions& options = {});

}  // namespace mkvirtfs::testing
