// SPDX-License-Identifier: BSD-3-Clause
#include "cli/source_loader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "block/host_files.h"
#include "fsgen/archive/archive.h"
#include "fsgen/host/source_sync.h"
#include "fsgen/oci/load.h"
#include "fsgen/stream/compressed.h"
#include "support/path.h"
#include "support/text.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {
namespace {

bool is_directory(const std::string& path) {
  struct stat status{};
  return path != "-" && ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool is_regular_file(const std::string& path) {
  struct stat status{};
  return path != "-" && ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

/// The name in its directory.
std::string leaf_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

Result<LoadedSource> load_directory(const std::string& path, const SourceOptions& options,
                                    const ScanOptions& scan, LogSink& log) {
  Result<Scan> scanned = scan_directory(path, scan, log);
  if (!scanned) return propagate(scanned);
  LoadedSource loaded;
  loaded.layer.tree = scanned->tree;
  loaded.layer.contents =
      make_host_files(scanned->files, options.change_rules(), log, scanned->tree->node_count());
  loaded.report = std::move(scanned->report);
  for (const std::string& message : loaded.report.unsynced) log.write(LogLevel::warning, message);
  if (options.outputs) options.outputs->tell(loaded.report, path, log);
  return loaded;
}

bool has_deflated(const archive::MemberLog& members) {
  archive::Member member;
  for (archive::MemberLog::Position at = 0; at < members.end();) {
    at = members.read(at, member);
    if (member.place == archive::Place::deflated) return true;
  }
  return false;
}

SourceFacts facts_of(const archive::Archive& archive, std::uint64_t spooled_source_bytes) {
  SourceFacts facts;
  facts.kind = "archive";
  facts.format = archive.format;
  facts.compression = to_string(archive.compression);
  facts.kept_index = archive.from_kept_index;
  const std::optional<StreamFacts> stream = stream_facts(*archive.stream);
  facts.spool_bytes = spooled_source_bytes;
  if (stream) {
    facts.index_bytes = stream->index_bytes;
    facts.spool_bytes += stream->spool_bytes;
  }
  if (archive.spool) facts.spool_bytes += archive.spool->size_bytes();
  const bool indexed = archive.compression != Compression::none || has_deflated(archive.members);
  facts.access = archive.spool || (stream && stream->spool_bytes != 0) ? "spooled"
                 : indexed                                             ? "indexed"
                                                                       : "direct";
  return facts;
}

void tell_of_spool(const std::string& name, const SourceFacts& facts,
                   const ArchiveSettings& settings, LogSink& log) {
  if (facts.spool_bytes == 0) return;
  log.write(LogLevel::info,
            fmt::format("{} cannot be read at any offset: {} are in a spool in {}", name,
                        human_size(facts.spool_bytes), settings.stream.spool->directory()));
}

Result<LoadedSource> load_archive(const PlacedSource& placed, const SourceOptions& options,
                                  const ScanOptions& scan, const LayersBelow* below, LogSink& log,
                                  const std::atomic<bool>* cancel) {
  const std::string& path = placed.source;
  const bool is_regular = is_regular_file(path);
  Result<ArchiveSettings> settings = options.archive().settings(log, cancel);
  if (!settings) return propagate(settings);
  settings->stream.change_check = options.change_rules().check;
  settings->stream.threads = options.threads();
  settings->read.manifest_directory = directory_of(path);
  Result<std::shared_ptr<ByteSource>> file =
      archive::open_archive_file(path, settings->stream, log);
  if (!file) return propagate(file);
  const std::uint64_t spooled_source_bytes = is_regular ? 0 : (*file)->size_bytes();
  std::vector<ContainerFile> containers = {{leaf_of(path), *file, is_regular}};
  const Result<archive::Archive> read =
      archive::read_archive(std::move(*file), settings->read, settings->stream,
                            is_regular ? settings->index_cache.get() : nullptr, log);
  if (!read) return propagate(read);
  archive::LayerOptions layer_options = settings->layer;
  layer_options.entries = scan.entries;
  // Whether something below has what they name, merging finds out.
  layer_options.outward_links = true;
  layer_options.below = below;
  layer_options.at = placed.at;
  Result<archive::ArchiveLayer> made =
      archive::make_layer(*read, layer_options, settings->stream, log);
  if (!made) return propagate(made);
  LoadedSource loaded;
  loaded.layer = std::move(made->layer);
  loaded.report.excluded_count = made->excluded_count;
  loaded.facts = facts_of(*read, spooled_source_bytes);
  loaded.containers = std::move(containers);
  tell_of_spool(read->name, loaded.facts, *settings, log);
  return loaded;
}

Result<LoadedSource> load_container_image(const oci::ImageName& name, const PlacedSource& placed,
                                          const SourceOptions& options, const ScanOptions& scan,
                                          const LayersBelow* below, LogSink& log,
                                          const std::atomic<bool>* cancel) {
  Result<ArchiveSettings> settings = options.archive().settings(log, cancel);
  if (!settings) return propagate(settings);
  oci::LoadOptions load_options;
  load_options.read = settings->read;
  load_options.stream = settings->stream;
  load_options.stream.change_check = options.change_rules().check;
  load_options.stream.threads = options.threads();
  load_options.layer = settings->layer;
  load_options.index_cache = settings->index_cache;
  Result<std::optional<oci::Platform>> platform = options.container().platform();
  if (!platform) return propagate(platform);
  load_options.platform = std::move(*platform);
  load_options.verify_direct = options.container().verify_direct();
  load_options.layer.entries = scan.entries;
  load_options.layer.below = below;
  load_options.layer.at = placed.at;
  Result<oci::LoadedImage> image = oci::load_image(name, load_options, log);
  if (!image) return propagate(image);
  LoadedSource loaded;
  loaded.layer = std::move(image->layer);
  loaded.report.excluded_count = image->excluded_count;
  loaded.facts.kind = "container image";
  loaded.facts.image_id = std::move(image->id);
  loaded.facts.platform = to_string(image->platform);
  loaded.facts.layer_count = image->layer_count;
  loaded.facts.packed_bytes = image->packed_bytes;
  loaded.facts.index_bytes = image->index_bytes;
  loaded.facts.spool_bytes = image->spool_bytes;
  tell_of_spool(image->name, loaded.facts, *settings, log);
  const bool is_layout = is_directory(name.path);
  for (std::shared_ptr<ByteSource>& file : image->files) {
    std::string path = file->name();
    path = is_layout && path.starts_with(name.path + '/') ? path.substr(name.path.size() + 1)
                                                          : leaf_of(path);
    loaded.containers.push_back(
        {std::move(path), std::move(file), is_layout || is_regular_file(name.path)});
  }
  return loaded;
}

/// An archive is written through mappings as well as a directory's files are.
Result<void> write_back(const std::string& path, const ScanOptions& scan, LogSink& log) {
  if (!scan.sync_within || path == "-") return {};
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat status{};
  // What cannot be opened is told of by who reads it; a pipe has no file system to write back.
  if (!file || ::fstat(file.get(), &status) != 0) return {};
  if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return {};
  SourceSync sync(*scan.sync_within);
  if (!sync.ensure(status.st_dev, file.get())) {
    return std::unexpected(sync.error().value_or(Error{Errc::io, EIO, "--sync-source failed"}));
  }
  for (const std::string& message : sync.blind()) log.write(LogLevel::warning, message);
  return {};
}

}  // namespace

std::string root_of_source(const std::string& path) {
  const auto image = oci::parse_image_name(path);
  const std::string& file = image ? image->path : path;
  if (file == "-") return {};
  return absolute_directory(is_directory(file) ? file : directory_of(file));
}

bool is_directory_source(const std::string& path) {
  if (path == "-" || oci::parse_image_name(path)) return false;
  // What is not there, or can not be looked at, is told of as ever.
  struct stat status{};
  return ::stat(path.c_str(), &status) != 0 || S_ISDIR(status.st_mode);
}

Result<LoadedSource> load_source(const PlacedSource& placed, const SourceOptions& options,
                                 const ScanOptions& scan, const LayersBelow* below, LogSink& log,
                                 const std::atomic<bool>* cancel) {
  if (const auto image = oci::parse_image_name(placed.source)) {
    if (Result<void> synced = write_back(image->path, scan, log); !synced) {
      return propagate(synced);
    }
    return load_container_image(*image, placed, options, scan, below, log, cancel);
  }
  if (is_directory_source(placed.source)) return load_directory(placed.source, options, scan, log);
  if (Result<void> synced = write_back(placed.source, scan, log); !synced) {
    return propagate(synced);
  }
  return load_archive(placed, options, scan, below, log, cancel);
}

}  // namespace mkvirtfs::cli
