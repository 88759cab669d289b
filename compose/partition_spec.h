// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compose/source_spec.h"
#include "fsgen/image/option_row.h"

namespace mkvirtfs {

/// A partition of a disk, or a part of it outside the table.
struct PartitionSpec {
  enum class Holds : std::uint8_t {
    file_system,  ///< made of `sources`, as an image by itself would be
    raw,          ///< the file that is the one source, as it is
    swap,         ///< a header of swap space; `options` are `label` and `uuid`
    blank,        ///< zeroes
  };
  Holds holds = Holds::file_system;
  std::vector<SourceSpec> sources{};
  /// As in ImageSpec. How large the file system is, the sizes below say.
  std::string format{};
  OptionValues options{};

  /// Exactly so large; unset: as large as what stands in it, with `free_bytes` of room. Neither:
  /// with the room that the format leaves by default.
  std::optional<std::uint64_t> size_bytes{};
  std::optional<std::uint64_t> free_bytes{};
  /// Unset: at the next multiple of 1 MiB.
  std::optional<std::uint64_t> offset_bytes{};

  bool in_table = true;
  // What the table says of it:
  std::string type{};  ///< as bootsect::find_partition_type() takes it; "": by what it holds
  std::string name{};  ///< GPT only
  std::string id{};    ///< GPT only: its own GUID; "": derived
  bool boots = false;  ///< MBR: active; GPT: legacy BIOS bootable
  std::vector<std::string> attributes{};  ///< GPT only: "required", "read-only"...
};

}  // namespace mkvirtfs
