// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fsgen/disk/cached_source.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::disk {

/// A time of 7 bytes (ECMA-119, 9.1.5); all zero is 1970. nullopt: it is none.
std::optional<Timestamp> iso_time(std::span<const std::byte> bytes);

/// What the system use area of a directory record says (SUSP 1.12, RRIP 1.12).
struct RockRidge {
  struct Attributes {
    std::uint32_t mode = 0;
    std::uint32_t link_count = 0;
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::uint32_t serial = 0;  ///< of the file, from 1 on; 0: there is none
  };
  bool is_rock_ridge = false;  ///< there is a field of it
  std::optional<std::string> name;
  std::optional<Attributes> attributes;
  std::optional<Timestamp> mtime;
  std::optional<std::string> target;  ///< of a symlink
  std::optional<DeviceNumber> device;
  std::optional<std::uint32_t> child_block;  ///< where the directory is that belongs here
  bool is_relocated = false;                 ///< it belongs elsewhere
  const char* packed_as = nullptr;           ///< what its bytes are instead of the file's
  std::string wrong;                         ///< the first thing that is wrong; empty: nothing
};

/// Reads system use areas of one hierarchy. One thread.
class SystemUseReader {
 public:
  /// Nothing is read but by start().
  SystemUseReader(CachedSource& disk, std::uint64_t block_bytes)
      : disk_(disk), block_bytes_(block_bytes) {}

  /// Takes the area of the root's first record, which says whether the hierarchy has such fields.
  Result<RockRidge> start(std::span<const std::byte> area);
  /// Of any other record. Errors: those of the disk.
  Result<RockRidge> read(std::span<const std::byte> area);

 private:
  struct Continuation {
    std::uint64_t offset = 0;
    std::uint32_t size_bytes = 0;
  };
  Result<RockRidge> read_all(std::span<const std::byte> area);
  /// One part of it; where it goes on.
  std::optional<Continuation> take_fields(std::span<const std::byte> area, RockRidge& made);
  void take_field(std::span<const std::byte> field, RockRidge& made);

  CachedSource& disk_;
  const std::uint64_t block_bytes_;
  bool is_there_ = false;
  std::size_t skip_ = 0;  // of each area: SUSP, 5.3
  std::uint64_t continued_bytes_ = 0;
  bool more_target_ = false;  // a component of the symlink's target comes behind a slash
  std::vector<std::byte> buffer_;
};

}  // namespace mkvirtfs::disk
