// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>

#include "fsgen/fat32/plan.h"
#include "fsgen/image/format.h"

namespace mkvirtfs::fat32 {

/// FAT12, FAT16 and FAT32, as the registry has them.
const Format& format();

/// The options of the format called `name`, without Options::made_at_s. Errc::usage for malformed
/// values.
Result<Options> read_options(std::string_view name, const OptionValues& values);

}  // namespace mkvirtfs::fat32
