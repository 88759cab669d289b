// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/image.h"
#include "bootsect/disk.h"
#include "compose/image_spec.h"
#include "compose/remark.h"
#include "compose/resources.h"
#include "compose/source_facts.h"
#include "fsgen/image/planned_image.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs {

/// What was found on the way to an image. What the image does not show as the source has it,
/// Image::differences() lists.
struct PrepareReport {
  std::vector<SourceFacts> sources{};  ///< in the order of the spec, partition by partition
  ScanReport passed_over{};            ///< of all sources together
  std::vector<Remark> remarks{};       ///< in the order in which they came up
  double scan_seconds = 0;
  double plan_seconds = 0;
};

/// A partition of a disk, or a part of it outside the table, as it came to be.
struct PreparedPartition {
  bootsect::PlacedPart placed;
  PartitionSpec::Holds holds = PartitionSpec::Holds::file_system;
  std::string format;                               ///< of a file system: a name of the registry
  std::string name;                                 ///< in a GPT
  std::shared_ptr<const SourceTree> tree;           ///< of a file system, else null
  std::shared_ptr<const PlannedImage> file_system;  ///< the same
  std::shared_ptr<const Image> image;
};

struct PreparedImage {
  /// Of an image that is one file system; null of a disk with partitions.
  std::shared_ptr<const SourceTree> tree;
  std::vector<PreparedPartition> partitions;  ///< of a disk, in the order of the spec
  std::shared_ptr<const Image> image;
  /// Reads `image`; a PreparedDevice (compose/source_base.h) where ImageSpec::keep_base asks for
  /// it.
  std::shared_ptr<ImageDevice> device;
  PrepareReport report;
};

/// Reads the names and the metadata of all sources, merges them in order and plans the image: no
/// byte of a file is read, but where an option asks for it (ISO's `dedupe`). Any thread; several
/// calls at once may share `resources`, which outlives the call. The device shares what it needs.
///
/// Throws nothing. Errors: Errc::usage for a spec that is malformed or contradicts itself, before
/// any source is read; Errc::unreadable for what a source has; Errc::does_not_fit and
/// Errc::unsupported for what the format has not; Errc::io with ECANCELED after
/// ResourceOptions::cancel, and with ENOMEM when there is no memory.
Result<PreparedImage> prepare(const ImageSpec& spec, Resources& resources) noexcept;

}  // namespace mkvirtfs
