// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fsgen/iso9660/file_area.h"
#include "fsgen/iso9660/hierarchy.h"
#include "fsgen/iso9660/plan.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::iso9660 {

/// Blocks before the volume descriptors: the system area, which is boot code's.
inline constexpr std::uint32_t kSystemBlocks = 16;
inline constexpr BlockNo kPrimaryDescriptor{kSystemBlocks};

/// A placed volume: everything that decides the image's bytes but the files' own. Made by plan(),
/// immutable afterwards.
///
///     system area | descriptors | path tables | directories | Joliet's directories | catalogue |
///     boot files | files | padding | tail
struct Volume {
  std::shared_ptr<const SourceTree> tree;
  Options options;
  std::string label;
  std::string time_digits;
  /// By Field; empty where there is none. Those that name files have identifiers.
  std::array<std::string, kFields> fields;
  std::array<std::string, kFields> joliet_fields;

  std::unique_ptr<const Hierarchy> primary;
  std::unique_ptr<const Hierarchy> joliet;  ///< nullptr: none

  // First blocks; 0 where there is none.
  BlockNo boot_record;
  BlockNo joliet_descriptor;
  BlockNo terminator;
  std::array<BlockNo, 4> path_tables;  ///< little- and big-endian, then Joliet's
  BlockNo path_tables_end;
  BlockNo catalog;
  FileArea files;
  BlockNo end;  ///< of the volume, padding included, tail not

  std::uint64_t image_bytes = 0;
};

// Descriptors. All fill the whole of `out`, one block, and may run on any thread.

/// The primary or the supplementary (Joliet's) volume descriptor; `hierarchy` is one of the
/// volume's.
void write_volume_descriptor(const Volume& volume, const Hierarchy& hierarchy,
                             std::span<std::byte> out);
/// El Torito's, with the address of the catalogue.
void write_boot_record(const Volume& volume, std::span<std::byte> out);
void write_terminator(std::span<std::byte> out);

}  // namespace mkvirtfs::iso9660
