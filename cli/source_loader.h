// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/source_base.h"
#include "cli/source_options.h"
#include "fsgen/host/scan.h"
#include "fsgen/tree/layer.h"
#include "fsgen/tree/layers_below.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::cli {

/// What a source turned out to be, for `inspect`.
struct SourceFacts {
  std::string kind = "directory";  ///< or "archive", "container image"
  // Of an archive:
  std::string format;             ///< "POSIX pax interchange format"
  std::string compression;        ///< "gzip", "none"
  std::string access;             ///< how members are read: "direct", "indexed", "spooled"
  bool kept_index = false;        ///< found in the cache directory
  std::uint64_t index_bytes = 0;  ///< in memory, of a compressed stream
  std::uint64_t spool_bytes = 0;  ///< unpacked on disk because it can not be made again
  // Of a container image, besides index_bytes and spool_bytes:
  std::string image_id;  ///< the digest of its configuration
  std::string platform;  ///< "linux/amd64"
  std::uint64_t layer_count = 0;
  std::uint64_t packed_bytes = 0;  ///< of all layers, as they lie in the image
};

/// A source that was read: names, metadata, and the way to its bytes.
struct LoadedSource {
  Layer layer;
  ScanReport report;
  SourceFacts facts;
  /// What it was read from, besides files that are nodes of the layer.
  std::vector<ContainerFile> containers;
};

/// The host directory in which the files of a source lie, absolute; "" for standard input.
std::string root_of_source(const std::string& path);

/// Whether load_source() takes it for a host directory: also what is not there.
bool is_directory_source(const std::string& path);

/// Reads the directory or archive at `path` ("-" is an archive on standard input), or the container
/// image that it names (oci::parse_image_name()), to be laid over the sources in `below`, if any,
/// with its root at the path `at` there. `options` are those that all sources share, `scan` their
/// values. `log` must outlive the layer. `cancel`, when it becomes true, ends the wait for what a
/// pipe brings; it lives as long as the layer.
Result<LoadedSource> load_source(const PlacedSource& placed, const SourceOptions& options,
                                 const ScanOptions& scan, const LayersBelow* below, LogSink& log,
                                 const std::atomic<bool>* cancel = nullptr);

}  // namespace mkvirtfs::cli
