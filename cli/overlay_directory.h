// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"

namespace mkvirtfs::cli {

/// The name of the file in which `--overlay=DIR/` keeps what is written to an export. Letters,
/// digits, '-', '_' and '.' (but not in front) stand for themselves, any other byte is %XX, and the
/// export without a name is "%": no two exports have one file, and no name leads out of the
/// directory. Errc::usage when that is longer than a file's name may be.
Result<std::string> overlay_file_name(std::string_view export_name);

/// The export that a file of that name belongs to; nothing when it is not an overlay's.
std::optional<std::string> export_of_overlay_file(std::string_view file_name);

/// Makes the directory when it is not there; its parent must be.
Result<void> make_overlay_directory(const std::string& path);

/// The exports that have an overlay in the directory, in bytewise order.
Result<std::vector<std::string>> exports_in_overlay_directory(const std::string& path);

}  // namespace mkvirtfs::cli
