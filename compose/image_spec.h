// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compose/partition_spec.h"
#include "compose/source_spec.h"
#include "fsgen/image/option_row.h"

// What an image is made of, as plain data: for prepare() (compose/prepare.h) and make_exports()
// (compose/exports.h). Nothing is looked at before these are called.

namespace mkvirtfs {

/// An image: its sources, laid over each other in this order (docs/layers.md), and its format; or a
/// disk with such images as partitions.
struct ImageSpec {
  std::vector<SourceSpec> sources{};
  /// A name of the registry: "ext4". "": what an option stands for, or else the default one.
  std::string format{};
  /// The format's options by name, as text: {{"label", "root"}, {"free", "1G"}}; and those of the
  /// disk: {{"table", "gpt"}} alone makes a disk with one partition of the sources.
  OptionValues options{};
  /// The partitions of a disk, which has neither sources nor a format of its own then.
  std::vector<PartitionSpec> partitions{};
  /// SOURCE_DATE_EPOCH: later times become this one, and the file system is dated so.
  std::optional<std::int64_t> source_date_epoch_s{};

  /// An overlay that outlives the process will lie over the image: the device is a PreparedDevice,
  /// which knows what it was made of. Costs 48 bytes a node.
  bool keep_base = false;
  /// For the manifest of such an overlay: the options as a user gave them, for people to compare.
  std::vector<std::string> given_options{};
};

/// The sources of an image, or of all partitions of a disk.
inline std::vector<SourceSpec> all_sources(const ImageSpec& spec) {
  std::vector<SourceSpec> all = spec.sources;
  for (const PartitionSpec& partition : spec.partitions) {
    all.insert(all.end(), partition.sources.begin(), partition.sources.end());
  }
  return all;
}

}  // namespace mkvirtfs
