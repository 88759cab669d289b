// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>

#include "fsgen/ext2/plan.h"
#include "fsgen/image/format.h"

namespace mkvirtfs::ext2 {

/// ext2, ext3 and ext4, as the registry has them.
const Format& format();

/// The options of the format called `name`, without Options::made_at_s. Errc::usage for malformed
/// values.
Result<Options> read_options(std::string_view name, const OptionValues& values);

}  // namespace mkvirtfs::ext2
