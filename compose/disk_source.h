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
