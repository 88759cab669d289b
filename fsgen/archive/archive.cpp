// SPDX-License-Identifier: BSD-3-Clause
// The compression is detected first. A kept index makes the pass unnecessary; else one pass
// unpacks the stream, finds the members and makes the index. Formats that need offsets of their
// own are read again from the indexed stream.
#include "fsgen/archive/archive.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/archive/archive_contents.h"
#include "fsgen/archive/mtree.h"
#include "fsgen/archive/segments.h"
#include "fsgen/stream/file_source.h"
#include "support/arithmetic.h"
#include "support/open_file.h"

namespace mkvirtfs::archive {

namespace {

bool lies_in_archive(MemberPlace place) {
  return place != MemberPlace::nowhere && place != MemberPlace::host &&
         place != MemberPlace::unreadable;
}

/// Passes on the messages while an archive is read, and remembers the warnings: they come again
/// with the kept index. One thread.
class RemarksLog final : public LogSink {
 public:
  explicit RemarksLog(LogSink& log) : log_(log) {}
  void write(LogLevel level, std::string_view message) noexcept override {
    write_with_hints(level, message, {});
  }
  void write_with_hints(LogLevel level, std::string_view message,
                        std::span<const Setting> hints) noexcept override {
    log_.write_with_hints(level, message, hints);
    if (level != LogLevel::warning) return;
    remarks_.push_back({std::string(message), {hints.begin(), hints.end()}});
  }
  const std::vector<KeptRemark>& remarks() const noexcept { return remarks_; }

 private:
  LogSink& log_;
  std::vector<KeptRemark> remarks_;
};

/// The archive as it was when its index was kept; nullopt: it must be read after all.
std::optional<Archive> from_kept_index(const std::shared_ptr<ByteSource>& packed,
                                       Compression compression, const IndexCache& cache,
                                       const ReadOptions& options,
                                       const StreamOptions& stream_options, LogSink& log,
                                       std::optional<DigestAlgorithm> digest_of_unpacked) {
  std::optional<KeptIndex> kept = cache.find(*packed, options.reading());
  if (!kept || kept->compression != compression) return std::nullopt;
  std::optional<Digest> digest;
  if (digest_of_unpacked) {
    const Result<Digest> parsed = parse_digest(kept->unpacked_digest);
    if (!parsed || parsed->algorithm != *digest_of_unpacked) return std::nullopt;
    digest = *parsed;
  }
  Result<std::shared_ptr<ByteSource>> stream =
      open_indexed(packed, kept->stream_index, stream_options);
  if (!stream) return std::nullopt;
  Archive archive;
  archive.name = packed->name();
  archive.format = std::move(kept->format);
  archive.members = std::move(kept->members);
  archive.stream = std::move(*stream);
  archive.compression = compression;
  archive.from_kept_index = true;
  archive.unpacked_digest = digest;
  // Too many members are reported when the archive is read anew.
  if (!check_places(archive, ReadLimits{UINT64_MAX, UINT64_MAX})) return std::nullopt;
  for (const KeptRemark& remark : kept->remarks) {
    log.write_with_hints(LogLevel::warning, remark.text, remark.hints);
  }
  return archive;
}

/// The bytes of a pass, hashed as they go by.
class HashedReader final : public ForwardReader {
 public:
  HashedReader(ForwardReader& pass, DigestAlgorithm algorithm) : pass_(pass), hash_(algorithm) {}

  /// Reads what is left.
  Result<Digest> finish() {
    while (true) {
      const Result<std::span<const std::byte>> more = next();
      if (!more) return propagate(more);
      if (more->empty()) return hash_.finish();
    }
  }

 protected:
  Result<std::span<const std::byte>> make_more() override {
    Result<std::span<const std::byte>> more = pass_.next();
    if (more) hash_.update(*more);
    return more;
  }

 private:
  ForwardReader& pass_;
  Hasher hash_;
};

/// A compressed archive that can be read forwards, in one pass; nullopt: `archive.stream` is what
/// it unpacks to, to be looked at again. The digest goes into `archive`, too.
Result<std::optional<ReadMembers>> read_in_one_pass(
    Archive& archive, const ReadOptions& options, const StreamOptions& stream_options,
    std::optional<DigestAlgorithm> digest_of_unpacked, std::uint64_t& packed_end, LogSink& log) {
  Result<std::unique_ptr<IndexingReader>> pass =
      open_compressed(archive.stream, archive.compression, stream_options);
  if (!pass) return propagate(pass);
  std::optional<HashedReader> hashed;
  if (digest_of_unpacked) hashed.emplace(**pass, *digest_of_unpacked);
  ForwardReader& reader = hashed ? static_cast<ForwardReader&>(*hashed) : **pass;
  Result<std::optional<ReadMembers>> found = read_members(reader, archive.name, options, log);
  if (!found) return found;
  if (hashed) {
    const Result<Digest> digest = hashed->finish();
    if (!digest) return propagate(digest);
    archive.unpacked_digest = *digest;
  }
  Result<std::shared_ptr<ByteSource>> unpacked = (*pass)->finish();
  if (!unpacked) return propagate(unpacked);
  archive.stream = std::move(*unpacked);
  packed_end = (*pass)->packed_end();
  // `tar -cz` of nothing is a stream of nothing for some.
  if (!*found && archive.stream->size_bytes() == 0) {
    found->emplace();
    (*found)->format = "empty";
  }
  return found;
}

/// All bytes of a source that can be read only once.
Result<std::shared_ptr<ByteSource>> spool_all(PipeReader& input,
                                              const std::shared_ptr<SpoolSpace>& spool) {
  if (!spool) {
    return fail(
        Errc::unsupported,
        fmt::format("{} can only be read once and needs a spool, and there is none", input.name()));
  }
  constexpr std::size_t kPieceBytes = std::size_t{256} << 10;
  std::vector<std::byte> buffer(kPieceBytes);
  SpoolWriter writer(spool, input.name());
  while (true) {
    const Result<std::size_t> got = input.read(buffer);
    if (!got) return propagate(got);
    if (*got == 0) return writer.finish();
    const auto piece = std::span(buffer).first(*got);
    if (Result<void> good = writer.append(piece); !good) return propagate(good);
  }
}

}  // namespace

Result<void> check_places(const Archive& archive, const ReadLimits& limits) {
  Member member;
  std::uint64_t count = 0;
  std::uint64_t total_bytes = 0;
  for (MemberLog::Position at = 0; at < archive.members.end();) {
    at = archive.members.read(at, member);
    if (++count > limits.most_members) {
      return fail(Errc::does_not_fit,
                  fmt::format("{} has more than {} members", archive.name, limits.most_members),
                  {{"max-entries"}});
    }
    const auto total = checked_add(total_bytes, member.size_bytes);
    if (!total || *total > limits.most_bytes) {
      return fail(
          Errc::does_not_fit,
          fmt::format("{}: its members have more than {} bytes", archive.name, limits.most_bytes),
          {{"max-size"}});
    }
    total_bytes = *total;
    if (!lies_in_archive(member.place)) continue;
    if (member.place == MemberPlace::in_pieces) {
      const std::uint64_t end = archive.stream->size_bytes();
      for (const Range& piece : member.pieces) {
        if (piece.offset <= end && piece.length <= end - piece.offset) continue;
        return fail(Errc::unreadable,
                    fmt::format("{}: member {}: has {} bytes at {}, but the archive ends at {}",
                                archive.name, member.path, piece.length, piece.offset, end));
      }
      continue;
    }
    const std::uint64_t length =
        member.place == MemberPlace::deflated ? member.packed_bytes : member.stored_bytes();
    const ByteSource* const source =
        member.place == MemberPlace::spooled ? archive.spool.get() : archive.stream.get();
    const std::uint64_t size = source == nullptr ? 0 : source->size_bytes();
    if (member.data_offset > size || length > size - member.data_offset) {
      return fail(Errc::unreadable,
                  fmt::format("{}: member {}: has {} bytes from {} on, but the archive ends at {}",
                              archive.name, member.path, length, member.data_offset, size));
    }
  }
  return {};
}

Result<std::shared_ptr<ByteSource>> open_archive_file(const std::string& path,
                                                      const StreamOptions& options, LogSink& log) {
  const PipeWait wait{&log, options.cancel};
  if (path == "-") {
    PipeReader input(STDIN_FILENO, "standard input", wait);
    return spool_all(input, options.spool);
  }
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    Result<PipeReader> input = PipeReader::open(path, wait);
    if (!input) return propagate(input);
    return spool_all(*input, options.spool);
  }
  return open_file_source(path, {OnChange::error, options.change_check}, log);
}

Result<Archive> read_archive(std::shared_ptr<ByteSource> packed, const ReadOptions& given,
                             const StreamOptions& stream_options, const IndexCache* cache,
                             LogSink& given_log,
                             std::optional<DigestAlgorithm> digest_of_unpacked) {
  RemarksLog log(given_log);
  ReadOptions options = given;
  if (!options.spool) options.spool = stream_options.spool;
  const Result<Compression> compression = detect_compression(*packed);
  if (!compression) return propagate(compression);
  Archive archive;
  archive.name = packed->name();
  archive.stream = packed;
  archive.compression = *compression;
  std::optional<ReadMembers> read;
  std::uint64_t packed_end = packed->size_bytes();
  if (*compression != Compression::none) {
    if (cache != nullptr) {
      std::optional<Archive> kept = from_kept_index(packed, *compression, *cache, options,
                                                    stream_options, log, digest_of_unpacked);
      if (kept) {
        if (Result<void> good = check_places(*kept, options.limits); !good) {
          return propagate(good);
        }
        return std::move(*kept);
      }
    }
    auto found =
        read_in_one_pass(archive, options, stream_options, digest_of_unpacked, packed_end, log);
    if (!found) return propagate(found);
    read = std::move(*found);
    // If it is nothing that is read forwards, it may be anything else.
  }
  const bool one_pass = read.has_value();
  if (!one_pass) {
    const Result<bool> manifest =
        options.manifest_directory ? is_mtree(*archive.stream) : Result<bool>(false);
    if (!manifest) return propagate(manifest);
    if (*manifest) archive.manifest_directory = *options.manifest_directory;
    Result<ReadMembers> found =
        *manifest ? read_mtree(*archive.stream, archive.manifest_directory, options.limits)
                  : read_members(archive.stream, options, log);
    if (!found) return propagate(found);
    read = std::move(*found);
  }
  const PackedArchive whole{packed, *compression, packed_end};
  if (Result<void> good = read_segments(whole, archive.stream, *read, options, stream_options, log);
      !good) {
    return propagate(good);
  }
  archive.members = std::move(read->members);
  archive.format = std::move(read->format);
  archive.spool = std::move(read->spool);
  if (Result<void> good = check_places(archive, options.limits); !good) {
    return propagate(good);
  }
  if (one_pass && cache != nullptr) {
    // What is spooled, or of several segments, has no index to keep.
    const Result<std::vector<std::byte>> index = save_index(*archive.stream);
    const std::string digest =
        archive.unpacked_digest ? to_string(*archive.unpacked_digest) : std::string();
    if (index) {
      cache->keep(*packed, options.reading(),
                  {*compression, archive.format, *index, archive.members, digest, log.remarks()});
    }
  }
  return archive;
}

Result<ArchiveLayer> make_layer(const Archive& archive, const LayerOptions& options,
                                const StreamOptions& stream_options, LogSink& log) {
  Result<LayerTree> made = make_layer_tree(archive.members, archive.name, options, log);
  if (!made) return propagate(made);
  ArchiveLayer layer{std::move(made->layer), made->excluded_count};
  std::shared_ptr<ContentStore> hosts;
  if (!archive.manifest_directory.empty()) {
    Result<std::shared_ptr<ContentStore>> opened =
        open_mtree_files(layer.layer.tree, made->places, archive.manifest_directory,
                         stream_options.change_check, log);
    if (!opened) return propagate(opened);
    hosts = std::move(*opened);
  }
  layer.layer.contents = std::make_shared<ArchiveContents>(
      layer.layer.tree, std::move(made->places),
      ArchiveContents::Sources{archive.stream, archive.spool, std::move(hosts)}, stream_options);
  return layer;
}

}  // namespace mkvirtfs::archive
