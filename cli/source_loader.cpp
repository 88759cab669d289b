// SPDX-License-Identifier: BSD-3-Clause
#include "cli/source_loader.h"

#include <sys/stat.h>

#include <utility>

#include "block/host_files.h"
#include "fsgen/archive/archive.h"
#include "fsgen/archive/oci_load.h"
#include "fsgen/stream/compressed.h"
#include "fsgen/stream/file_source.h"

namespace mkvirtfs::cli {
namespace {

Result<LoadedSource> load_directory(const std::string& path, const SourceOptions& options,
                                    const ScanOptions& scan, LogSink& log) {
  Result<Scan> scanned = scan_directory(path, scan, log);
  if (!scanned) return std::unexpected(std::move(scanned.error()));
  LoadedSource loaded;
  loaded.layer.tree = scanned->tree;
  loaded.layer.contents =
      make_host_files(scanned->files, options.on_change(), log, scanned->tree->node_count());
  loaded.report = std::move(scanned->report);
  return loaded;
}

Result<LoadedSource> load_archive(const std::string& path, const ScanOptions& scan, LogSink& log) {
  Result<std::shared_ptr<ByteSource>> file = open_file_source(path, OnChange::error, log);
  if (!file) return std::unexpected(std::move(file.error()));
  const StreamOptions stream_options;
  const Result<archive::Archive> read =
      archive::read_archive(std::move(*file), archive::ReadOptions{}, stream_options, log);
  if (!read) return std::unexpected(read.error());
  archive::LayerOptions layer_options;
  layer_options.scan = scan;
  Result<archive::ArchiveLayer> made =
      archive::make_layer(*read, layer_options, stream_options, log);
  if (!made) return std::unexpected(std::move(made.error()));
  LoadedSource loaded;
  loaded.layer = std::move(made->layer);
  loaded.report.excluded_count = made->excluded_count;
  loaded.facts.kind = "archive";
  loaded.facts.format = read->format;
  return loaded;
}

Result<LoadedSource> load_container_image(const oci::ImageName& name, const SourceOptions& options,
                                          const ScanOptions& scan, LogSink& log) {
  oci::LoadOptions load_options;
  Result<std::optional<oci::Platform>> platform = options.container().platform();
  if (!platform) return std::unexpected(std::move(platform.error()));
  load_options.platform = std::move(*platform);
  load_options.verify_direct = options.container().verify_direct();
  load_options.layer.scan = scan;
  Result<oci::LoadedImage> image = oci::load_image(name, load_options, log);
  if (!image) return std::unexpected(std::move(image.error()));
  LoadedSource loaded;
  loaded.layer = std::move(image->layer);
  loaded.report.excluded_count = image->excluded_count;
  loaded.facts.kind = "container image";
  loaded.facts.image_id = std::move(image->id);
  loaded.facts.platform = to_string(image->platform);
  loaded.facts.layer_count = image->layer_count;
  loaded.facts.packed_bytes = image->packed_bytes;
  return loaded;
}

}  // namespace

Result<LoadedSource> load_source(const std::string& path, const SourceOptions& options,
                                 const ScanOptions& scan, LogSink& log) {
  if (const auto image = oci::parse_image_name(path)) {
    return load_container_image(*image, options, scan, log);
  }
  struct stat status{};
  // What is not there, or can not be looked at, is told of as ever.
  if (::stat(path.c_str(), &status) != 0 || S_ISDIR(status.st_mode)) {
    return load_directory(path, options, scan, log);
  }
  return load_archive(path, scan, log);
}

}  // namespace mkvirtfs::cli
