// SPDX-License-Identifier: BSD-3-Clause
#include "compose/source_loader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "block/host_files.h"
#include "compose/archive_settings.h"
#include "compose/disk_source.h"
#include "compose/file_source.h"
#include "compose/source_name.h"
#include "fsgen/archive/archive.h"
#include "fsgen/host/source_sync.h"
#include "fsgen/oci/load.h"
#include "fsgen/stream/compressed.h"
#include "support/path.h"
#include "support/text.h"
#include "support/unique_fd.h"

namespace mkvirtfs {
namespace {

/// Whether that is what `path` leads to: S_IFDIR, S_IFREG.
bool is_of_type(const std::string& path, mode_t type) {
  struct stat status{};
  return path != "-" && ::stat(path.c_str(), &status) == 0 && (status.st_mode & S_IFMT) == type;
}

/// The name in its directory.
std::string leaf_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

Result<LoadedSource> load_directory(const SourceSpec& spec, const ScanOptions& scan,
                                    const Resources& resources, Remarks& remarks) {
  LogSink& log = resources.log();
  Result<Scan> scanned = scan_directory(spec.path, scan, log);
  if (!scanned) return propagate(scanned);
  LoadedSource loaded;
  loaded.layer.tree = scanned->tree;
  loaded.layer.contents =
      make_host_files(scanned->files, spec.changes, log, scanned->tree->node_count());
  loaded.report = std::move(scanned->report);
  for (const std::string& message : loaded.report.unsynced) {
    remarks.add(Remark::About::not_written_back, LogLevel::warning, message, {"sync-source"});
  }
  for (const std::string& name : resources.outputs().met(loaded.report)) {
    remarks.add(Remark::About::output, LogLevel::warning,
                fmt::format("{} lies in the source {} and is left out of the image; the time of "
                            "its directory differs from run to run, and so does the image (better "
                            "write it elsewhere)",
                            name, spec.path));
  }
  return loaded;
}

bool has_deflated(const archive::MemberLog& members) {
  archive::Member member;
  for (archive::MemberLog::Position at = 0; at < members.end();) {
    at = members.read(at, member);
    if (member.place == archive::MemberPlace::deflated) return true;
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

void remark_on_spool(const std::string& name, const SourceFacts& facts,
                     const ArchiveSettings& settings, Remarks& remarks) {
  if (facts.spool_bytes == 0) return;
  remarks.add(Remark::About::spool, LogLevel::info,
              fmt::format("{} cannot be read at any offset: {} are in a spool in {}", name,
                          human_size(facts.spool_bytes), settings.stream.spool->directory()));
}

Result<std::shared_ptr<ByteSource>> open_address(const std::string& uri,
                                                 const Resources& resources) {
  if (resources.options().open_address) return resources.options().open_address(uri);
  return fail(Errc::unsupported, fmt::format("{}: the address of a server is no source", uri));
}

Result<LoadedSource> load_archive(const SourceSpec& spec, const ScanOptions& scan,
                                  const LayersBelow* below, Resources& resources,
                                  Remarks& remarks) {
  LogSink& log = resources.log();
  const ArchivePath source = split_archive_path(spec.path);
  const bool is_regular = is_of_type(source.file, S_IFREG);
  Result<ArchiveSettings> settings = archive_settings(spec, resources);
  if (!settings) return propagate(settings);
  settings->read.manifest_directory = directory_of(source.file);
  const bool is_remote = is_address(source.file);
  Result<std::shared_ptr<ByteSource>> file =
      is_remote ? open_address(source.file, resources)
                : archive::open_archive_file(source.file, settings->stream, log);
  if (!file) return propagate(file);
  const bool is_direct = is_regular || is_remote;
  const std::uint64_t spooled_source_bytes = is_direct ? 0 : (*file)->size_bytes();
  std::vector<ContainerFile> containers = {{leaf_of(source.file), *file, is_regular}};
  const std::shared_ptr<ByteSource> whole = *file;
  if (!source.partition.empty()) {
    file = open_partition(whole, source.partition, remarks);
    if (!file) return propagate(file);
  }
  const bool is_whole_file = is_regular && source.partition.empty();
  archive::LayerOptions layer_options = settings->layer;
  layer_options.entries = scan.entries;
  // Whether something below has what they name, merging finds out.
  layer_options.outward_links = true;
  layer_options.below = below;
  layer_options.at = spec.at;
  layer_options.subtree = source.subtree;
  const Result<std::optional<disk::DiskFormat>> format = disk_format_of(spec, **file, is_direct);
  if (!format) return propagate(format);
  if (*format) {
    layer_options.outward_links = false;
    Result<LoadedSource> loaded =
        load_disk(*file, **format, spec, *settings, layer_options, log, remarks);
    if (!loaded) return loaded;
    loaded->facts.spool_bytes = spooled_source_bytes;
    loaded->facts.access = is_direct ? "direct" : "spooled";
    loaded->containers = std::move(containers);
    remark_on_spool((*file)->name(), loaded->facts, *settings, remarks);
    return loaded;
  }
  Result<archive::Archive> read =
      archive::read_archive(std::move(*file), settings->read, settings->stream,
                            is_whole_file ? settings->index_cache.get() : nullptr, log);
  if (!read) {
    if (is_direct && source.partition.empty() && archive::is_no_archive(read.error())) {
      std::optional<Setting> hint = partition_hint(*whole);
      if (hint) read.error().hints.insert(read.error().hints.begin(), *std::move(hint));
    }
    return propagate(read);
  }
  Result<archive::ArchiveLayer> made =
      archive::make_layer(*read, layer_options, settings->stream, log);
  if (!made) return propagate(made);
  LoadedSource loaded;
  loaded.layer = std::move(made->layer);
  loaded.report.excluded_count = made->excluded_count;
  loaded.facts = facts_of(*read, spooled_source_bytes);
  loaded.containers = std::move(containers);
  remark_on_spool(read->name, loaded.facts, *settings, remarks);
  return loaded;
}

Result<LoadedSource> load_container_image(const oci::ImageName& name, const SourceSpec& spec,
                                          const ScanOptions& scan, const LayersBelow* below,
                                          Resources& resources, Remarks& remarks) {
  Result<ArchiveSettings> settings = archive_settings(spec, resources);
  if (!settings) return propagate(settings);
  oci::LoadOptions load_options;
  load_options.read = settings->read;
  load_options.stream = settings->stream;
  load_options.layer = settings->layer;
  load_options.index_cache = settings->index_cache;
  load_options.platform = spec.platform;
  load_options.verify_direct = spec.verify_layers;
  load_options.layer.entries = scan.entries;
  load_options.layer.below = below;
  load_options.layer.at = spec.at;
  Result<oci::LoadedImage> image = oci::load_image(name, load_options, resources.log());
  if (!image) return propagate(image);
  LoadedSource loaded;
  loaded.layer = std::move(image->layer);
  loaded.report.excluded_count = image->excluded_count;
  loaded.facts.kind = "container image";
  loaded.facts.image_id = std::move(image->id);
  loaded.facts.process = std::move(image->process);
  loaded.facts.platform = to_string(image->platform);
  loaded.facts.layer_count = image->layer_count;
  loaded.facts.packed_bytes = image->packed_bytes;
  loaded.facts.index_bytes = image->index_bytes;
  loaded.facts.spool_bytes = image->spool_bytes;
  remark_on_spool(image->name, loaded.facts, *settings, remarks);
  const bool is_layout = is_of_type(name.path, S_IFDIR);
  for (std::shared_ptr<ByteSource>& file : image->files) {
    std::string path = file->name();
    path = is_layout && path.starts_with(name.path + '/') ? path.substr(name.path.size() + 1)
                                                          : leaf_of(path);
    loaded.containers.push_back(
        {std::move(path), std::move(file), is_layout || is_of_type(name.path, S_IFREG)});
  }
  return loaded;
}

/// An archive is written through mappings as well as a directory's files are.
Result<void> write_back(const std::string& path, const ScanOptions& scan, Remarks& remarks) {
  if (!scan.sync_within || path == "-") return {};
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat status{};
  // What cannot be opened is reported by the code that reads it; a pipe has no file system to write
  // back.
  if (!file || ::fstat(file.get(), &status) != 0) return {};
  if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return {};
  SourceSync sync(*scan.sync_within);
  if (!sync.ensure(status.st_dev, file.get())) {
    return std::unexpected(
        sync.error().value_or(Error{Errc::io, EIO, "write back the file system of " + path}));
  }
  for (const std::string& message : sync.blind()) {
    remarks.add(Remark::About::not_written_back, LogLevel::warning, message, {"sync-source"});
  }
  return {};
}

}  // namespace

void Remarks::add(Remark::About about, LogLevel level, std::string what, Setting at_fault,
                  std::vector<Setting> hints) {
  remarks_.push_back({about, level, std::move(what), std::move(at_fault), std::move(hints)});
  const Remark& remark = remarks_.back();
  if (resources_.options().on_remark) {
    resources_.options().on_remark(remark);
  } else if (remark.at_fault.option.empty()) {
    resources_.log().write_with_hints(remark.level, remark.what, remark.hints);
  } else {
    resources_.log().write_with_hints(
        remark.level,
        fmt::format("{}{}{}: {}", remark.at_fault.option, remark.at_fault.value.empty() ? "" : "=",
                    remark.at_fault.value, remark.what),
        remark.hints);
  }
}

namespace {

Result<LoadedSource> load_at(const SourceSpec& spec, const ScanOptions& scan,
                             const LayersBelow* below, Resources& resources, Remarks& remarks) {
  if (const auto image = oci::parse_image_name(spec.path)) {
    if (Result<void> synced = write_back(image->path, scan, remarks); !synced) {
      return propagate(synced);
    }
    return load_container_image(*image, spec, scan, below, resources, remarks);
  }
  if (is_directory_source(spec.path)) return load_directory(spec, scan, resources, remarks);
  if (Result<void> synced = write_back(split_archive_path(spec.path).file, scan, remarks);
      !synced) {
    return propagate(synced);
  }
  return load_archive(spec, scan, below, resources, remarks);
}

}  // namespace

Result<LoadedSource> load_source(const SourceSpec& spec, const ScanOptions& scan,
                                 const LayersBelow* below, Resources& resources, Remarks& remarks) {
  if (!spec.is_file) {
    Result<LoadedSource> loaded = load_at(spec, scan, below, resources, remarks);
    if (loaded) {
      loaded->at = spec.at;
      loaded->root = root_of_source(spec.path);
    }
    const bool may_be_file = !loaded && !plain_place(spec.at).empty() && !spec.at.ends_with('/') &&
                             archive::is_no_archive(loaded.error()) && is_regular_file(spec.path);
    if (!may_be_file) return loaded;
  } else if (Result<void> synced = write_back(spec.path, scan, remarks); !synced) {
    return propagate(synced);
  }
  Result<LoadedSource> loaded = load_file(spec, scan, below, resources);
  if (!loaded) return loaded;
  loaded->at = file_place(spec.at).directory;
  if (!spec.is_file) {
    remarks.add(
        Remark::About::file_source, LogLevel::info,
        fmt::format("{} is no archive: it is the file /{}", spec.path, plain_place(spec.at)));
  }
  return loaded;
}

}  // namespace mkvirtfs
