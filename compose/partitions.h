// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bootsect/disk.h"
#include "compose/boot.h"
#include "compose/disk_options.h"
#include "compose/partition_spec.h"
#include "compose/prepare.h"
#include "compose/read_sources.h"
#include "fsgen/image/format_registry.h"
#include "support/error.h"

namespace mkvirtfs {

/// A partition on its way to a disk.
struct PartitionDraft {
  PartitionSpec spec;
  std::string format;  ///< of a file system: a name of the registry
  Planner planner;
  std::optional<AttributeOverride> root;  ///< what options say of its root
  bool follows_symlinks = false;          ///< as Format has it
  ReadSources read;                       ///< of a file system, and of a raw image as its one file
};

/// What names a partition in the list of them: its first source, "swap" or "blank".
std::string word_of(const PartitionSpec& spec);
/// An error of a partition: the options that it speaks of are those of the partition of that word,
/// and not of the disk.
Error of_partition(Error error, const std::string& word);

/// Whether it has as many sources as what it holds is made of. Errc::usage.
Result<void> check_partition_sources(const PartitionSpec& spec);

/// All else of a partition that can be checked before a source is read. Errc::usage.
Result<PartitionDraft> draft_partition(PartitionSpec spec, const DiskSettings& disk,
                                       const FormatRegistry& formats);

/// The one partition that `--table` alone makes of an image's sources: it fills the disk, if that
/// has a size.
PartitionSpec whole_disk_partition(const ImageSpec& spec, const DiskSettings& disk,
                                   const FormatRegistry& formats);

/// Whether the options of an image go together, whatever its sources are. Errc::usage.
Result<void> check_options(const ImageSpec& spec, const FormatRegistry& formats);

/// What a disk is made of, as ids, before anything is added to it for booting.
struct DiskIdentity {
  std::array<std::byte, 32> seed{};
  bootsect::DiskIds ids;
};
Result<DiskIdentity> identify_disk(const std::vector<PartitionDraft>& drafts,
                                   const DiskSettings& disk);
/// The number that the table gives to a draft; 0 outside the table.
std::uint32_t number_of(const std::vector<PartitionDraft>& drafts, const DiskSettings& disk,
                        std::size_t draft);

struct DiskRequest {
  DiskIdentity identity{};
  const Boot* boot = nullptr;  ///< null: nothing boots
  bool is_whole = false;       ///< the one partition is what the options of the disk say
  std::optional<std::int64_t> source_date_epoch_s{};
  unsigned threads = 0;                       ///< as PlanRequest has it
  std::function<void(std::string)> remark{};  ///< the same
};

struct PlannedPartitions {
  bootsect::Disk disk;
  std::vector<PreparedPartition> partitions;
};

/// Plans what stands in the partitions, and the disk around them. Errors: as those of plan_disk()
/// and of the formats.
Result<PlannedPartitions> plan_partitions(const std::vector<PartitionDraft>& drafts,
                                          const DiskSettings& disk, const DiskRequest& request);

}  // namespace mkvirtfs
