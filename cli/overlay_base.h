// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>

#include "block/overlay/base_manifest.h"
#include "block/overlay/header.h"
#include "compose/source_base.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::cli {

/// What must be as it was for a kept overlay to be opened again: serve --base-check.
enum class BaseCheckRule : std::uint8_t {
  stat,     ///< of every file inode, size, mtime and ctime, or else its content
  content,  ///< the content of every file
  mtime,    ///< what the image itself shows: names, sizes, mtimes
};

/// What is done with one whose base is not what it was: serve --overlay-base.
enum class OtherBase : std::uint8_t {
  refuse,
  accept,  ///< the same image, whose files are believed to be the same
  any,     ///< any image at all, to be read alone
};

/// Decides over which base an overlay may be opened, by its manifest (docs/layout-overlay.md), and
/// stores that. For OverlayFile::BaseCheck: the overlay is locked meanwhile.
class BaseGuard {
 public:
  struct Rules {
    BaseCheckRule check = BaseCheckRule::stat;
    OtherBase other = OtherBase::refuse;
  };
  /// `id` is that of the image of `now` over which `overlay` shall lie, which has `size_bytes`.
  /// `now` and `log` outlive it.
  BaseGuard(std::string overlay, const ImageId& id, std::uint64_t size_bytes, const SourceBase& now,
            const Rules& rules, LogSink& log);

  /// `found` is nullptr for a new overlay. Errc::usage, with what differs and the ways on, for what
  /// may not be opened.
  Result<void> check(const OverlayHeader* found) const;

 private:
  Result<void> check_without_manifest() const;
  Result<void> check_same_image() const;
  Result<void> refuse_damaged(const Error& error) const;
  std::unexpected<Error> another_image() const;

  const std::string overlay_;
  const ImageId id_;
  const std::uint64_t size_bytes_;
  const SourceBase& now_;
  const Rules rules_;
  LogSink& log_;
};

/// Puts the digests of all files into the manifest of an overlay that nobody uses, each of a file
/// that is still what the manifest says.
struct Sealed {
  std::uint64_t files = 0;  ///< that have a digest now
  std::uint64_t read_bytes = 0;
};
Result<Sealed> seal_overlay(const std::string& overlay);

/// "2024-02-03T04:05:06.789Z", as touch -d takes it.
std::string to_string(const FileTime& time);

}  // namespace mkvirtfs::cli
