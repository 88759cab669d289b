// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "block/device.h"
#include "block/overlay/file.h"
#include "block/overlay/overlay.h"
#include "exports/overlay_exports.h"
#include "support/error.h"
#include "support/log.h"

// Where the overlays of exports are kept: what OverlayExports::Options asks for.

namespace mkvirtfs {

/// Overlays that end with the process.
struct TemporaryShelf {
  enum class Place : std::uint8_t { directory, memory };

  Place place = Place::directory;
  std::string directory = {};  ///< holds files without names
  Overlay::Options limits = {};
};

/// Sets make_overlay and branch.
void keep_temporary(OverlayExports::Options& options, TemporaryShelf shelf);

/// Overlays that outlive the process.
struct DiskShelf {
  enum class Place : std::uint8_t {
    directory,  ///< a directory with a file for each export (exports/overlay_directory.h)
    file,       ///< the file of one export; its snapshots have theirs beside it
  };
  enum class Base : std::uint8_t {
    same,  ///< an overlay lies over the image that it was made over, or is refused
    any,   ///< it lies over whatever the export shows now, and is only read
  };
  /// Gives the check that decides, with the id of the image, whether the overlay at `path` may lie
  /// over this device; an empty one decides by the id alone. Any thread.
  using MakeBaseCheck = std::function<OverlayFile::BaseCheck(
      const std::string& path, const std::shared_ptr<BlockDevice>& device, const ImageId& base)>;

  Place place = Place::directory;
  std::string path = {};
  std::string main_export = {};  ///< of Place::file, the export that has the file
  Base base = Base::same;
  Overlay::Options limits = {};
  MakeBaseCheck make_base_check = nullptr;
  /// Has a line for an overlay that cannot be opened, or is empty. Lives as long as the options.
  LogSink* log = &null_log();
};

/// Sets make_overlay, branch, forget, and the names and branches that are kept already. Makes the
/// directory when it is not there. Errors: those of make_overlay_directory() and, of a directory,
/// overlays_in_directory().
Result<void> keep_on_disk(OverlayExports::Options& options, DiskShelf shelf);

}  // namespace mkvirtfs
