// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/overlay/file.h"
#include "support/error.h"

namespace mkvirtfs {

/// The name of layer `layer` below the overlay at `path`.
std::string overlay_layer_path(const std::string& path, std::uint32_t layer);
/// Where a snapshot makes the file that will be the overlay at `path`.
std::string unfinished_overlay_path(const std::string& path);
/// The overlay that a file of such a name belongs to; empty for any other name.
std::string overlay_of_layer_path(std::string_view path);
std::string overlay_of_unfinished_path(std::string_view path);

/// Whether the file has that name.
bool is_named(int fd, const std::string& path);

/// The header of the file at `path`; nothing when there is no such file.
Result<std::optional<OverlayHeader>> overlay_header_at(const std::string& path);

/// Finishes what a snapshot has left of an overlay that was cut off when the layer below was frozen
/// already, or else removes it. A snapshot that another process is making is left alone.
Result<void> recover_overlay(const std::string& path,
                             FileOperations& operations = FileOperations::host());

/// A snapshot of an overlay in a file: the file is frozen, a new top over it takes its name, and
/// another one is the child. docs/layout-overlay.md has the story step by step.
///
/// Two tops are made under names of their own, and the layer gets its names below them; then it is
/// frozen, which is one write that is whole or not there; and then the tops take their names. What
/// is cut off before the freezing leaves the overlay as it was, and what is cut off behind it is
/// finished when the overlays are opened next.
///
/// One thread.
class OverlaySnapshot {
 public:
  /// Makes all that is new. `child` is where the child will be; nothing may be there. The origin is
  /// that of OverlayHeader. Errc::usage, or Errc::unsupported where no snapshot
  /// is possible.
  static Result<std::unique_ptr<OverlaySnapshot>> begin(OverlayFile& frozen,
                                                        const std::string& child,
                                                        const std::string& origin);
  /// Undoes it, unless it was committed, or may have been.
  ~OverlaySnapshot();
  OverlaySnapshot(const OverlaySnapshot&) = delete;
  OverlaySnapshot& operator=(const OverlaySnapshot&) = delete;

  /// Freezes the file. It must not be written meanwhile, and never is again.
  Result<void> commit(const BlockStates& states);
  /// Gives the tops their names, once it is committed. A failure is no harm: the next that opens
  /// them does it.
  Result<void> finish();

  std::unique_ptr<OverlayFile> take_top() { return std::move(top_); }
  std::unique_ptr<OverlayFile> take_child() { return std::move(child_); }

 private:
  OverlaySnapshot(OverlayFile& frozen, std::string child);

  Result<void> make(const std::string& origin);
  Result<std::unique_ptr<OverlayFile>> make_top(const std::string& path, OverlayHeader header);
  Result<void> add_name(const std::string& from, const std::string& to);
  Result<void> sync_directories();

  OverlayFile& frozen_;
  FileOperations& operations_;
  const std::string child_path_;
  LayerId id_{};
  std::unique_ptr<OverlayFile> top_;
  std::unique_ptr<OverlayFile> child_;
  std::vector<std::string> made_;  // names, in the order of their making
  bool is_committed_ = false;
};

}  // namespace mkvirtfs
