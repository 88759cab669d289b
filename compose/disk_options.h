// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bootsect/disk.h"
#include "compose/partition_spec.h"
#include "fsgen/image/option_row.h"
#include "support/error.h"

namespace mkvirtfs {

/// The options of a disk, whatever its partitions are. A registry of formats has them, too.
std::span<const OptionRow> disk_options();

/// What they say.
struct DiskSettings {
  std::optional<bootsect::TableKind> table{};  ///< unset: the image is no disk with partitions
  /// A GPT whose MBR shows partitions, too; with `table` unset, that of an ISO image which boots.
  bool is_hybrid = false;
  std::uint32_t sector_bytes = bootsect::kUsualSectorBytes;
  std::optional<std::uint64_t> size_bytes{};
  std::optional<std::uint64_t> esp_bytes{};  ///< an EFI system partition of its own; unset: none
  std::optional<Uuid> gpt_id{};              ///< unset: derived
  std::optional<std::uint32_t> mbr_id{};     ///< unset: derived
};
/// Of `values` the ones that are about a disk. `format`: that of the image, which may have a table
/// of its own; "": it consists of partitions, and a table is the default. Errc::usage for what is
/// malformed or contradicts itself.
Result<DiskSettings> read_disk_options(const OptionValues& values, std::string_view format);

/// How an image boots.
struct BootSettings {
  std::vector<std::string> loaders{};
  // Of the configuration that is made where the tree has none:
  std::string kernel{};  ///< a path in a source; "": the newest kernel
  std::vector<std::string> initrds{};
  std::string append{};
  std::optional<std::uint32_t> timeout_s{};
  bool replaces_config = false;   ///< a made one stands instead of the tree's
  std::string own_loader{};       ///< an executable of UEFI, a path of the host; "": none
  std::string files_directory{};  ///< with the loader's pieces; "": where packages put them
};
/// nullopt: it does not. Errc::usage.
Result<std::optional<BootSettings>> read_boot_options(const OptionValues& values);

/// What a partition has beside the options of sources and formats.
std::span<const OptionRow> partition_options();
/// Sets what `values`, each of which has a row, say of the table; and of `size` and `free`, which
/// the caller takes away from the format's. Errc::usage.
Result<void> read_partition_options(const OptionValues& values, PartitionSpec& partition);

}  // namespace mkvirtfs
