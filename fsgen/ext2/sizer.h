// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fsgen/ext2/plan.h"
#include "fsgen/ext2/volume.h"
#include "support/error.h"

namespace mkvirtfs::ext2 {

/// What of the defaults a volume has. What was asked for, it has in any case.
struct Kept {
  enum class Inodes : std::uint8_t {
    by_size,  ///< one for so many bytes of the file system, but no fewer than `spare`
    spare,    ///< those in use, 10 % and 1024
    in_use,
  };
  Inodes inodes = Inodes::by_size;
  bool journal = true;
  bool reserved_descriptors = true;
};

/// Finds the size of a volume, or what has room in a given one. Holds references only.
class Sizer {
 public:
  Sizer(const Contents& contents, const Options& options);

  struct Sized {
    std::unique_ptr<const Volume> volume;
    /// In words, what is there by default and had no room; empty when all had.
    std::string gave_way;
  };
  /// A volume of so many blocks, but for a rest too small for a group. Defaults give way, as few as
  /// can be. Errors: Errc::does_not_fit, with the smallest size that fits.
  Result<Sized> exactly(std::uint64_t block_count) const;

  /// The smallest volume found that leaves as much free as Options::free says. Errors:
  /// Errc::does_not_fit, when it would be larger than the format can have it.
  Result<std::unique_ptr<const Volume>> with_free_space() const;

  /// The smallest volume that holds the contents and what was asked for; no default has a part in
  /// it. Errors: as of with_free_space().
  Result<std::unique_ptr<const Volume>> smallest() const;

  std::uint64_t most_blocks() const noexcept;

 private:
  /// nullptr if the contents do not fit; `shortfall` then says by how many blocks at least.
  std::unique_ptr<const Volume> try_blocks(std::uint64_t block_count, const Kept& kept,
                                           std::uint64_t& shortfall) const;
  std::optional<Volume::Size> shape(std::uint64_t block_count, const Kept& kept,
                                    std::uint64_t& shortfall) const;
  template <class FreeBlocks>
  Result<std::unique_ptr<const Volume>> fit(const Kept& kept, FreeBlocks&& free_blocks,
                                            std::uint64_t rounded_to) const;
  std::uint64_t grown(std::uint64_t from, std::uint64_t to, const Kept& kept) const noexcept;
  Result<std::uint64_t> smallest_block_count(const Kept& kept) const;
  std::unexpected<Error> too_big(std::uint64_t blocks) const;
  std::uint64_t least_blocks(const Kept& kept) const noexcept;

  /// What is tried in a given size, the best first.
  std::vector<Kept> choices() const;
  std::string gave_way(const Kept& kept, const Volume& volume) const;
  /// What of a volume was asked for and could be left out, with its bytes, in words.
  std::string could_be_left_out(const Volume& volume) const;

  std::uint64_t inodes_asked() const noexcept;
  std::uint64_t inodes_for(std::uint64_t block_count, const Kept& kept) const noexcept;
  bool wants_journal(const Kept& kept) const noexcept;
  std::uint32_t reserved_for(std::uint64_t block_count, const Kept& kept) const;
  std::uint32_t inodes_per_group_for(std::uint64_t block_count, const Kept& kept) const noexcept;

  const Contents& contents_;
  const Parameters& parameters_;
  const Options& options_;
  std::uint64_t used_inodes_;
};

}  // namespace mkvirtfs::ext2
