// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/archive.h"

#include <fmt/format.h>

#include <utility>

#include "fsgen/archive/archive_contents.h"

namespace mkvirtfs::archive {

Result<Archive> read_archive(std::shared_ptr<ByteSource> packed, const ReadOptions& options,
                             const StreamOptions& stream_options, LogSink& log) {
  const Result<Compression> compression = detect_compression(*packed);
  if (!compression) return std::unexpected(compression.error());
  Archive archive;
  archive.name = packed->name();
  archive.stream = packed;
  if (*compression != Compression::none) {
    Result<std::unique_ptr<IndexingReader>> pass =
        open_compressed(packed, *compression, stream_options);
    if (!pass) return std::unexpected(std::move(pass.error()));
    Result<std::optional<ReadMembers>> read = read_members(**pass, archive.name, options, log);
    if (!read) return std::unexpected(std::move(read.error()));
    Result<std::shared_ptr<ByteSource>> unpacked = (*pass)->finish();
    if (!unpacked) return std::unexpected(std::move(unpacked.error()));
    archive.stream = std::move(*unpacked);
    if (*read) {
      archive.members = std::move((*read)->members);
      archive.format = std::move((*read)->format);
      return archive;
    }
    // Something that is not read forwards, and why anybody would compress it is not ours to ask.
  }
  Result<ReadMembers> read = read_members(archive.stream, options, log);
  if (!read) return std::unexpected(std::move(read.error()));
  archive.members = std::move(read->members);
  archive.format = std::move(read->format);
  archive.spool = std::move(read->spool);
  return archive;
}

Result<ArchiveLayer> make_layer(const Archive& archive, const LayerOptions& options,
                                const StreamOptions& stream_options, LogSink& log) {
  Result<LayerTree> made = make_layer_tree(archive.members, archive.name, options, log);
  if (!made) return std::unexpected(std::move(made.error()));
  ArchiveLayer layer{std::move(made->layer), made->excluded_count};
  layer.layer.contents = std::make_shared<ArchiveContents>(
      layer.layer.tree, std::move(made->places),
      ArchiveContents::Sources{archive.stream, archive.spool, nullptr}, stream_options);
  return layer;
}

}  // namespace mkvirtfs::archive
