// SPDX-License-Identifier: BSD-3-Clause
// The layers of an image are read at once, each as if nothing lay below it, and then laid over each
// other, the lowest first. Where a layer leaves out parents of its members, what lies below decides
// where they lead: such a layer remembers the paths that it asked for, and is made once more when
// one of them is a symlink or a file below.
#include "fsgen/oci/load.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "fsgen/archive/archive.h"
#include "fsgen/oci/find_image.h"
#include "fsgen/oci/image_files.h"
#include "fsgen/oci/whiteouts.h"
#include "fsgen/stream/chunk_cache.h"
#include "fsgen/stream/verified_source.h"
#include "fsgen/tree/merge.h"
#include "support/message.h"
#include "support/parallel.h"

namespace mkvirtfs::oci {
namespace {

constexpr std::uint64_t kLeastIndexBytes = std::uint64_t{1} << 20;
// Each has a decoder of its own, which may take much memory (StreamOptions::decoder_memory_bytes).
constexpr unsigned kMostAtOnce = 4;

/// Where the files of an archive lie in it.
TarIndex index_of(const archive::MemberLog& members) {
  TarIndex index;
  archive::Member member;
  for (archive::MemberLog::Position at = 0; at < members.end();) {
    at = members.read(at, member);
    if (member.is_hard_link) {
      index.add_hard_link(member.path, member.link_target);
    } else if (S_ISLNK(member.mode)) {
      index.add_symlink(member.path, member.link_target);
    } else if (S_ISREG(member.mode) && !member.is_sparse &&
               (member.place == archive::MemberPlace::stored ||
                member.place == archive::MemberPlace::nowhere)) {
      index.add_file(member.path, {member.data_offset, member.size_bytes});
    }
  }
  return index;
}

/// Whether it can be opened again at any time. Otherwise it goes to a spool, whose indexes are of
/// no use to a later run.
bool is_lasting(const std::string& path) {
  struct stat status{};
  return path != "-" &&
         (::stat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
}

/// Sets in `loaded` the size of a spool, and the file that holds the whole image.
Result<std::unique_ptr<ImageFiles>> open_files(const std::string& path, const LoadOptions& options,
                                               LoadedImage& loaded, LogSink& log) {
  if (path.empty()) return fail(Errc::usage, "oci: without a path names no image (oci:PATH[:REF])");
  struct stat status{};
  if (path != "-" && ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
    return open_directory(path, options.stream.change_check, log);
  }
  Result<std::shared_ptr<ByteSource>> file = archive::open_archive_file(path, options.stream, log);
  if (!file) return propagate(file);
  if (!is_lasting(path)) loaded.spool_bytes += (*file)->size_bytes();
  loaded.files.push_back(*file);
  const Result<archive::Archive> tar = archive::read_archive(
      std::move(*file), options.read, options.stream, options.index_cache.get(), log);
  if (!tar) return propagate(tar);
  if (const auto facts = stream_facts(*tar->stream)) loaded.spool_bytes += facts->spool_bytes;
  return make_tar_files(tar->stream, index_of(tar->members));
}

/// Answers that nothing lies below, and remembers for which paths.
class AskedPaths final : public LayersBelow {
 public:
  Standing look(std::string_view path) const override {
    paths_.emplace_back(path);
    return {};
  }
  /// Whether one of them would have led the tree elsewhere.
  bool matter(const LayersBelow& below) const {
    return std::ranges::any_of(paths_, [&](const std::string& path) {
      const Standing::Kind kind = below.look(path).kind;
      return kind == Standing::Kind::symlink || kind == Standing::Kind::other;
    });
  }
  bool empty() const noexcept { return paths_.empty(); }

 private:
  mutable std::vector<std::string> paths_;  // of the one thread that makes the tree
};

/// The layers of the image so far, and below them what the image is laid over.
class ImageBelow final : public LayersBelow {
 public:
  ImageBelow(const LayersBelow& layers, const LayersBelow* outer)
      : layers_(layers), outer_(outer) {}

  Standing look(std::string_view path) const override {
    const Standing own = layers_.look(path);
    return own.kind != Standing::Kind::nothing || outer_ == nullptr ? own : outer_->look(path);
  }

 private:
  const LayersBelow& layers_;
  const LayersBelow* const outer_;
};

struct ReadLayer {
  Layer layer;
  LayerMarks marks;
  /// What `layer` was made of, when what lies below may make another one of it.
  std::optional<archive::Archive> archive;
  AskedPaths asked;
  std::uint64_t index_bytes = 0;
  std::uint64_t spool_bytes = 0;
  std::uint64_t excluded_count = 0;
};

/// Nothing is verified twice: a layer that is not compressed is what its diff_id is of, and of one
/// that is compressed both digests are made in the one pass.
Result<void> compare_digests(const LayerBlob& blob, bool is_direct) {
  const bool both =
      is_direct && blob.digest && blob.diff_id && blob.digest->algorithm == blob.diff_id->algorithm;
  if (!both || *blob.digest == *blob.diff_id) return {};
  return fail(Errc::unreadable,
              fmt::format("{} has the digest {} and is not compressed, but the configuration of "
                          "the image says {} (diff_ids)",
                          blob.bytes->name(), to_string(*blob.digest), to_string(*blob.diff_id)));
}

Result<archive::Archive> read_verified(const LayerBlob& blob, const LoadOptions& options,
                                       LogSink& log) {
  const Result<Compression> compression = detect_compression(*blob.bytes);
  if (!compression) return propagate(compression);
  const bool is_direct = *compression == Compression::none;
  if (Result<void> good = compare_digests(blob, is_direct); !good) {
    return propagate(good);
  }
  std::vector<Digest> wanted;
  if (blob.digest) wanted.push_back(*blob.digest);
  const bool is_other = is_direct && blob.diff_id &&
                        (!blob.digest || blob.digest->algorithm != blob.diff_id->algorithm);
  if (is_other) wanted.push_back(*blob.diff_id);
  if (is_direct && !options.verify_direct) wanted.clear();

  std::shared_ptr<ByteSource> bytes = blob.bytes;
  std::vector<std::shared_ptr<VerifiedSource>> verified;
  for (const Digest& digest : wanted) {
    verified.push_back(make_verified(bytes, digest));
    bytes = verified.back();
  }
  std::optional<DigestAlgorithm> unpacked;
  if (!is_direct && blob.diff_id) unpacked = blob.diff_id->algorithm;
  archive::ReadOptions read_options = options.read;
  read_options.lacks_end = true;
  Result<archive::Archive> read = archive::read_archive(
      std::move(bytes), read_options, options.stream, options.index_cache.get(), log, unpacked);
  // Of damaged bytes anything may be wrong: the digest says it best.
  for (const std::shared_ptr<VerifiedSource>& source : verified) {
    if (Result<void> good = source->verify(); !good) {
      return propagate(good);
    }
  }
  if (!read) return read;
  if (unpacked && read->unpacked_digest != blob.diff_id) {
    return fail(
        Errc::unreadable,
        fmt::format("{} unpacks to the digest {}, but the configuration of the image says {} "
                    "(diff_ids)",
                    blob.bytes->name(),
                    read->unpacked_digest ? to_string(*read->unpacked_digest) : "none",
                    to_string(*blob.diff_id)));
  }
  return read;
}

Result<ReadLayer> read_layer(const LayerBlob& blob, const LoadOptions& options, LogSink& log) {
  Result<archive::Archive> read = read_verified(blob, options, log);
  if (!read) return propagate(read);
  Result<LayerMarks> marks = take_whiteouts(read->members, read->name, options.layer.unsafe_names);
  if (!marks) return propagate(marks);
  ReadLayer layer;
  layer.marks = std::move(*marks);
  // Layers are read all at once, so what lies below this one is not known yet. Mostly it says
  // nothing of the paths that the layer asks for.
  archive::LayerOptions layer_options = options.layer;
  layer_options.below = &layer.asked;
  Result<archive::ArchiveLayer> made =
      archive::make_layer(*read, layer_options, options.stream, log);
  if (!made) return propagate(made);
  layer.layer = std::move(made->layer);
  layer.excluded_count = made->excluded_count;
  if (const std::optional<StreamFacts> facts = stream_facts(*read->stream)) {
    layer.index_bytes = facts->index_bytes;
    layer.spool_bytes = facts->spool_bytes;
  }
  if (!layer.asked.empty()) layer.archive = std::move(*read);
  return layer;
}

/// Lays the layer over those that are in place.
Result<void> lay(ReadLayer& layer, const std::string& name, const LoadOptions& options,
                 LayerStack& stack, LogSink& log) {
  const ImageBelow below(stack, options.layer.below);
  MarkedView view(below);
  if (Result<void> good = view.settle(layer.marks, name, options.layer.layer_symlinks); !good) {
    return good;
  }
  const bool may_lead = options.layer.layer_symlinks != LayerSymlinks::replace;
  if (may_lead && layer.archive && layer.asked.matter(view)) {
    archive::LayerOptions layer_options = options.layer;
    layer_options.below = &view;
    Result<archive::ArchiveLayer> made =
        archive::make_layer(*layer.archive, layer_options, options.stream, log);
    if (!made) return propagate(made);
    layer.layer = std::move(made->layer);
    layer.excluded_count = made->excluded_count;
  }
  layer.archive.reset();
  layer.layer.whiteouts = view.whiteouts();
  layer.layer.opaque_directories = view.opaque_directories();
  return stack.add({std::move(layer.layer), "", name});
}

/// An image without layers is an empty directory.
Result<void> lay_nothing(const std::string& name, const LoadOptions& options, LayerStack& stack,
                         LogSink& log) {
  archive::Archive nothing;
  nothing.name = name;
  Result<archive::ArchiveLayer> made =
      archive::make_layer(nothing, options.layer, options.stream, log);
  if (!made) return propagate(made);
  return stack.add({std::move(made->layer), "", name});
}

/// Reads all layers of an image, the lowest first, several of them at once: the result and the
/// error are those of one after the other.
class LayerReaders {
 public:
  LayerReaders(const std::vector<LayerBlob>& blobs, const LoadOptions& options,
               std::uint64_t packed_bytes, LogSink& log)
      : blobs_(blobs),
        options_(options),
        packed_bytes_(std::max<std::uint64_t>(packed_bytes, 1)),
        log_(log) {}

  Result<std::vector<ReadLayer>> run();

 private:
  Result<ReadLayer> read(const LayerBlob& blob, unsigned threads) const;

  const std::vector<LayerBlob>& blobs_;
  const LoadOptions& options_;
  const std::uint64_t packed_bytes_;
  LogSink& log_;
};

Result<ReadLayer> LayerReaders::read(const LayerBlob& blob, unsigned threads) const {
  LoadOptions own = options_;
  own.stream.threads = threads;
  const double part =
      static_cast<double>(blob.bytes->size_bytes()) / static_cast<double>(packed_bytes_);
  own.stream.index_memory_bytes = std::max(
      kLeastIndexBytes,
      static_cast<std::uint64_t>(static_cast<double>(own.stream.index_memory_bytes) * part));
  try {
    return read_layer(blob, own, log_);
  } catch (...) {
    return std::unexpected(error_of_exception("read " + blob.bytes->name()));
  }
}

Result<std::vector<ReadLayer>> LayerReaders::run() {
  const unsigned threads = options_.stream.threads;
  const auto at_once = static_cast<unsigned>(std::min<std::size_t>(
      thread_count(threads, kMostAtOnce), std::max<std::size_t>(blobs_.size(), 1)));
  // What was given is shared out, too: each layer's stream may have threads of its own.
  const unsigned threads_each = threads == 0 ? 0 : std::max(threads / at_once, 1U);
  std::vector<ReadLayer> all(blobs_.size());
  const Result<void> read_all =
      parallel_for(blobs_.size(), {.threads = at_once, .doing = "read the layers of an image"},
                   [&](std::size_t at) -> Result<void> {
                     Result<ReadLayer> layer = read(blobs_[at], threads_each);
                     if (!layer) return propagate(layer);
                     all[at] = std::move(*layer);
                     return {};
                   });
  if (!read_all) return propagate(read_all);
  return all;
}

/// The layers that were read, one over the other; counts in `loaded` what they cost.
Result<Layer> merge_read(std::vector<ReadLayer>& layers, const ContainerImage& image,
                         const LoadOptions& options, LoadedImage& loaded, LogSink& log) {
  LayerStack stack;
  for (std::size_t at = 0; at < layers.size(); ++at) {
    ReadLayer& layer = layers[at];
    Result<void> good = lay(layer, image.layers[at].bytes->name(), options, stack, log);
    if (!good) return propagate(good);
    loaded.index_bytes += layer.index_bytes;
    loaded.spool_bytes += layer.spool_bytes;
    loaded.excluded_count += layer.excluded_count;
  }
  if (layers.empty()) {
    Result<void> good = lay_nothing(loaded.name, options, stack, log);
    if (!good) return propagate(good);
  }
  return std::move(stack).merge();
}

}  // namespace

Result<LoadedImage> load_image(const ImageName& name, const LoadOptions& options, LogSink& log) {
  LoadOptions shared = options;
  shared.layer.outward_links = true;
  shared.layer.follows_own_symlinks = shared.layer.layer_symlinks == LayerSymlinks::follow;
  // An image has a root of its own. Below a path it is whole before it is laid over anything.
  if (!shared.layer.at.empty()) shared.layer.below = nullptr;
  shared.layer.at.clear();
  if (!is_lasting(name.path)) shared.index_cache.reset();
  if (!shared.stream.cache) shared.stream.cache = std::make_shared<ChunkCache>();
  LoadedImage loaded;
  const Result<std::unique_ptr<ImageFiles>> files = open_files(name.path, shared, loaded, log);
  if (!files) return propagate(files);
  Result<ContainerImage> image = find_image(**files, name, options.platform);
  if (!image) return propagate(image);

  loaded.name = std::move(image->name);
  loaded.id = std::move(image->id);
  loaded.platform = std::move(image->platform);
  loaded.process = std::move(image->process);
  loaded.layer_count = image->layers.size();
  const bool are_files = loaded.files.empty();
  for (const LayerBlob& blob : image->layers) {
    loaded.packed_bytes += blob.bytes->size_bytes();
    if (are_files) loaded.files.push_back(blob.bytes);
  }
  Result<std::vector<ReadLayer>> read =
      LayerReaders(image->layers, shared, loaded.packed_bytes, log).run();
  if (!read) return propagate(read);
  Result<Layer> merged = merge_read(*read, *image, shared, loaded, log);
  if (!merged) return propagate(loaded.name, merged);
  loaded.layer = std::move(*merged);
  return loaded;
}

}  // namespace mkvirtfs::oci
