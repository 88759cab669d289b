// SPDX-License-Identifier: BSD-3-Clause
// An image of a file system is read as an archive is: its members make a layer, with all the rules
// that the options give, and their bytes are ranges of the image.
#include "compose/disk_source.h"

#include <fmt/format.h>

#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "compose/source_name.h"
#include "fsgen/archive/archive.h"
#include "fsgen/disk/disk_job.h"
#include "fsgen/disk/partition_table.h"
#include "fsgen/stream/file_source.h"
#include "fsgen/tree/source_differences.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kMostPaths = 100;

/// The members without those whose bytes cannot be had, under all of their names.
Result<archive::MemberLog> without_unreadable(const archive::MemberLog& members,
                                              ScanReport& report) {
  archive::MemberLog kept;
  archive::Member member;
  std::set<std::string, std::less<>> left_out;
  for (archive::MemberLog::Position at = 0; at < members.end();) {
    at = members.read(at, member);
    const bool is_unreadable = member.place == archive::MemberPlace::unreadable;
    if (!is_unreadable && !(member.is_hard_link && left_out.contains(member.link_target))) {
      if (Result<void> good = kept.append(member); !good) return propagate(good);
      continue;
    }
    ++report.unreadable_count;
    if (is_unreadable) left_out.emplace(member.path);
    if (report.unreadable_paths.size() < kMostPaths) {
      report.unreadable_paths.push_back(is_unreadable
                                            ? fmt::format("{}: {}", member.path, member.contents)
                                            : std::string(member.path));
    }
  }
  return kept;
}

}  // namespace

Result<std::shared_ptr<ByteSource>> open_partition(const std::shared_ptr<ByteSource>& disk,
                                                   const std::string& partition, Remarks& remarks) {
  const Result<std::optional<disk::PartitionTable>> table = disk::read_partition_table(*disk);
  if (!table) return propagate(table);
  if (!*table) {
    return fail(Errc::unreadable, fmt::format("{} has no partition table, and so no partition {}",
                                              disk->name(), partition));
  }
  const Result<disk::Partition> found = disk::find_partition(**table, *disk, partition);
  if (!found) return propagate(found);
  if (!(*table)->problem.empty()) {
    remarks.add(Remark::About::unreadable, LogLevel::warning, (*table)->problem);
  }
  const char border = is_address(disk->name()) ? '#' : ':';
  return make_window(disk, found->range, fmt::format("{}{}{}", disk->name(), border, partition));
}

std::optional<Setting> partition_hint(ByteSource& disk) {
  const Result<std::optional<disk::PartitionTable>> table = disk::read_partition_table(disk);
  if (!table || !*table) return std::nullopt;
  return Setting{"", fmt::format("{}{}NUMBER for one of its partitions {}", disk.name(),
                                 is_address(disk.name()) ? '#' : ':', disk::list_of(**table))};
}

Result<std::optional<disk::DiskFormat>> disk_format_of(const SourceSpec& spec, ByteSource& source,
                                                       bool is_regular_file) {
  switch (spec.format) {
    case SourceFormat::by_magic: {
      const Result<std::optional<disk::DiskFormat>> found = disk::detect(source);
      if (found && *found == disk::DiskFormat::iso && !is_regular_file) return std::nullopt;
      return found;
    }
    case SourceFormat::archive:
      return std::nullopt;
    case SourceFormat::ext:
      return disk::DiskFormat::ext;
    case SourceFormat::fat:
      return disk::DiskFormat::fat;
    case SourceFormat::erofs:
      return disk::DiskFormat::erofs;
    case SourceFormat::iso:
      return disk::DiskFormat::iso;
  }
  return std::nullopt;
}

Result<LoadedSource> load_disk(const std::shared_ptr<ByteSource>& source, disk::DiskFormat format,
                               const SourceSpec& spec, const ArchiveSettings& settings,
                               const archive::LayerOptions& layer_options, LogSink& log,
                               Remarks& remarks) {
  Result<disk::ReadDisk> read =
      disk::read_disk(source, format, settings.read.limits, settings.read.helper, log);
  if (!read) return propagate(read);
  LoadedSource loaded;
  if (read->problem_count != 0) {
    const std::string count = counted(read->problem_count, "problem", "problems");
    if (!spec.skip_unreadable) {
      std::string what = std::move(read->first_problem);
      if (read->problem_count > 1) what += fmt::format(" ({} in all)", count);
      return fail(Errc::unreadable, std::move(what), {{"skip-unreadable"}});
    }
    // The log has the problems themselves.
    if (spec.keep_unreadable) {
      remarks.add(
          Remark::About::unreadable, LogLevel::warning,
          fmt::format("{} is damaged ({}): what can be read is there", source->name(), count));
    } else {
      remarks.add(
          Remark::About::unreadable, LogLevel::warning,
          fmt::format("{} is damaged ({}): what that concerns is left out", source->name(), count));
      Result<archive::MemberLog> kept = without_unreadable(read->members, loaded.report);
      if (!kept) return propagate(kept);
      read->members = std::move(*kept);
    }
  }
  archive::Archive archive;
  archive.name = source->name();
  archive.format = read->format;
  archive.members = std::move(read->members);
  archive.stream = source;
  if (Result<void> good = archive::check_places(archive, settings.read.limits); !good) {
    return propagate(good);
  }
  Result<archive::ArchiveLayer> made =
      archive::make_layer(archive, layer_options, settings.stream, log);
  if (!made) return propagate(made);
  loaded.layer = std::move(made->layer);
  loaded.report.excluded_count = made->excluded_count;
  loaded.facts.kind = "disk image";
  loaded.facts.format = archive.format;
  return loaded;
}

}  // namespace mkvirtfs
