// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>

#include "fsgen/image/format.h"
#include "fsgen/iso9660/plan.h"

namespace mkvirtfs::iso9660 {

/// ISO 9660 with Rock Ridge and Joliet, as the registry has them.
const Format& format();

/// The options of the format called `name`, without Options::made_at_s. Errc::usage for malformed
/// values.
Result<Options> read_options(std::string_view name, const OptionValues& values);

}  // namespace mkvirtfs::iso9660
