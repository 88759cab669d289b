// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/content.h"
#include "block/image.h"
#include "fsgen/image/option_row.h"
#include "fsgen/image/planned_image.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs {

/// What a plan is made of.
struct PlanRequest {
  std::shared_ptr<const SourceTree> tree{};
  /// The bytes of the tree's files, for formats that compare them before they plan. Not null.
  std::shared_ptr<ContentStore> contents{};
  /// Time stamp of the file system itself; unset: the newest mtime of the tree.
  std::optional<std::int64_t> made_at_s{};
  /// At most so many threads at once, the caller's among them; 0: one a processor. The image does
  /// not depend on it.
  unsigned threads = 0;
  /// Is given what is worth saying about an image that is made all the same, one line each; may be
  /// empty.
  std::function<void(std::string)> remark{};
  /// What stands in the tree instead of symlinks, where Format::follows_symlinks asked for that:
  /// the image lists it among its differences.
  std::vector<Difference> followed{};
  /// The byte of its disk at which the volume will begin: the start of its partition.
  std::uint64_t disk_offset_bytes = 0;
  /// The logical sectors of that disk; unset: as the format's options say.
  std::optional<std::uint32_t> disk_sector_bytes{};
  /// The file that firmware loads by itself, a path of the tree; "": none. Formats with a boot
  /// catalogue make room for one; others pass it over.
  std::string boot_file{};
  /// The same formats: a file that stands behind all others, up to the end of the volume; "": none.
  std::string last_file{};
  /// The same formats: the image is a multiple of so many bytes; 0: as it comes.
  std::uint64_t align_bytes = 0;
  /// The same formats: so many bytes behind the volume, which are somebody else's.
  std::uint64_t tail_bytes = 0;
};

/// A format with its options set: makes the plan. Errors are those of the format's plan().
using Planner =
    std::function<Result<std::shared_ptr<const PlannedImage>>(const PlanRequest& request)>;

/// What a file system of the format can show of a tree. What it cannot, the image reports as
/// differences.
struct FormatHolds {
  bool owners = false;  ///< owners and permission bits
  bool symlinks = false;
  bool hard_links = false;
  bool devices = false;  ///< devices, FIFOs and sockets
  bool xattrs = false;
};

/// One name of a format: "ext4", "fat16".
struct FormatName {
  std::string_view name{};
  std::string_view remark{};  ///< for --help, in parentheses behind the name; may be empty
};

/// A format, or a family of formats that one planner makes: its names, what it can hold, its
/// options and its planner. A format says this here and nowhere else: see docs/adding-a-format.md.
struct Format {
  std::string_view family{};  ///< for headings: "ext2/3/4"
  std::span<const FormatName> names{};
  FormatHolds holds{};
  /// No system writes to it: an image that may be written is of no use.
  bool read_only = false;
  std::span<const OptionRow> options{};
  /// Sentences for the manual: what the names mean, and what the format does not hold. Markup as
  /// in OptionRow::manual.
  std::string_view manual{};
  /// Reads the values, of which each has a row in `options`, and returns the planner that keeps
  /// them. Errc::usage for what is malformed or contradictory; nothing else is looked at yet.
  Result<Planner> (*configure)(std::string_view name, const OptionValues& values) = nullptr;
  /// Whether the planner wants a tree and contents in which what symlinks lead to stands in their
  /// place (fsgen/tree/followed_symlinks.h). Null: no, or it sees to that itself.
  bool (*follows_symlinks)(const OptionValues& values) = nullptr;
};

}  // namespace mkvirtfs
