// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <optional>

#include "compose/archive_settings.h"
#include "compose/source_loader.h"
#include "fsgen/disk/read_disk.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/tree/layers_below.h"

namespace mkvirtfs {

/// A partition of `disk`, by its number, its name in a GPT or the label of its file system; what is
/// wrong with the table, and does not matter for it, is a remark. Errc::unreadable where there is
/// none, or where it cannot be believed.
Result<std::shared_ptr<ByteSource>> open_partition(const std::shared_ptr<ByteSource>& disk,
                                                   const std::string& partition, Remarks& remarks);
/// What would help where all of `disk` was to be read and is nothing that is known: a hint that
/// names its partitions, if it has some.
std::optional<Setting> partition_hint(ByteSource& disk);

/// Which file system a source is an image of, as `spec` or its magic numbers say; nullopt: none, or
/// ISO 9660 out of a pipe, which is an archive unless `spec` says otherwise.
Result<std::optional<disk::DiskFormat>> disk_format_of(const SourceSpec& spec, ByteSource& source,
                                                       bool is_regular_file);

/// Reads an image of a file system. Errc::unreadable when something is wrong with it, unless
/// SourceSpec::skip_unreadable leaves out what that concerns.
Result<LoadedSource> load_disk(const std::shared_ptr<ByteSource>& source, disk::DiskFormat format,
                               const SourceSpec& spec, const ArchiveSettings& settings,
                               const archive::LayerOptions& layer_options, LogSink& log,
                               Remarks& remarks);

}  // namespace mkvirtfs
