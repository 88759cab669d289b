// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs {

// The files of overlays in a directory, which outlive the process: one for each export.

/// The name of the file in which what is written to an export is kept. Letters,
/// digits, '-', '_' and '.' (but not in front) stand for themselves, any other byte is %XX, and the
/// export without a name is "%": no two exports have one file, and no name leads out of the
/// directory. Errc::usage when that is longer than a file's name may be.
Result<std::string> overlay_file_name(std::string_view export_name);

/// The export that a file of that name belongs to; nothing when it is not an overlay's.
std::optional<std::string> export_of_overlay_file(std::string_view file_name);

/// The same of a snapshot's export beside the file of one overlay, whose name is `base`.
Result<std::string> branch_file_name(std::string_view base, std::string_view export_name);
std::optional<std::string> export_of_branch_file(std::string_view base, std::string_view file_name);

/// Makes the directory when it is not there; its parent must be.
Result<void> make_overlay_directory(const std::string& path);

/// An export that has an overlay on the disk.
struct KeptOverlay {
  std::string name;
  bool is_branch = false;  ///< it began as a snapshot
  std::string origin;      ///< of that: OverlayHeader::origin
  bool operator==(const KeptOverlay&) const = default;
};

/// The exports that have an overlay in the directory, in bytewise order of their names.
/// `export_of(file name)` is the export that a file belongs to. What snapshots left that were cut
/// off is finished or removed, and `log` has the layers without an overlay.
Result<std::vector<KeptOverlay>> overlays_in_directory(
    const std::string& path,
    const std::function<std::optional<std::string>(std::string_view)>& export_of, LogSink& log);

}  // namespace mkvirtfs
