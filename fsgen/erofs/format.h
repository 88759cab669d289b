// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>

#include "fsgen/erofs/plan.h"
#include "fsgen/image/format.h"

namespace mkvirtfs::erofs {

/// EROFS without compression, as the registry has it.
const Format& format();

/// The options of the format called `name`, without Options::made_at_s and Options::duplicates.
/// Errc::usage for malformed values.
Result<Options> read_options(std::string_view name, const OptionValues& values);

}  // namespace mkvirtfs::erofs
