// SPDX-License-Identifier: BSD-3-Clause
// Behind the first archive the next one is looked for at the first byte that is not zero: a plain
// cpio archive or a compressed stream. Its members' offsets are shifted by the lengths of the
// streams before, which are concatenated in the end.
#include "fsgen/archive/segments.h"

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fsgen/archive/archive_end.h"
#include "fsgen/stream/concatenated_source.h"
#include "fsgen/stream/file_source.h"

namespace mkvirtfs::archive {
namespace {

class SegmentReader {
 public:
  SegmentReader(const PackedArchive& whole, std::shared_ptr<ByteSource>& stream, ReadMembers& read,
                const ReadOptions& options, const StreamOptions& stream_options, LogSink& log)
      : whole_(whole),
        stream_(stream),
        read_(read),
        options_(options),
        stream_options_(stream_options),
        log_(log),
        compression_(whole.compression) {}

  Result<void> run();

 private:
  /// Where the next segment would begin: what the last one left of the packed bytes.
  Result<std::optional<std::uint64_t>> find_next(const std::optional<std::uint64_t>& rest_offset,
                                                 std::uint64_t stream_end);
  /// False: there is none at `offset`. Sets next_.
  Result<bool> take_segment(std::uint64_t offset);
  Result<bool> take_plain(std::uint64_t offset);
  /// `window` is what stands there.
  Result<bool> take_compressed(const std::shared_ptr<ByteSource>& window, std::uint64_t offset,
                               Compression compression);
  Result<void> append(const MemberLog& members, std::uint64_t shift);
  void tell_of_rest(std::uint64_t offset, bool is_unpacked);

  const PackedArchive& whole_;
  std::shared_ptr<ByteSource>& stream_;
  ReadMembers& read_;
  const ReadOptions& options_;
  const StreamOptions& stream_options_;
  LogSink& log_;

  Compression compression_;  // of the last segment
  std::optional<std::uint64_t> next_;
  std::vector<std::shared_ptr<ByteSource>> parts_;
  std::uint64_t parts_bytes_ = 0;
};

Result<void> SegmentReader::run() {
  if (read_.kind == ArchiveKind::zip || read_.kind == ArchiveKind::other) {
    // Their readers begin at the end, or know it from the header.
    const Result<std::optional<std::uint64_t>> end = end_of_archive(*stream_, read_.kind);
    if (!end) return propagate(end);
    if (*end) {
      const Result<std::optional<std::uint64_t>> rest = find_rest(*stream_, **end);
      if (!rest) return propagate(rest);
      read_.rest_offset = *rest;
    }
  }
  Result<std::optional<std::uint64_t>> next = find_next(read_.rest_offset, whole_.stream_end);
  if (!next) return propagate(next);
  next_ = *next;
  parts_ = {stream_};
  parts_bytes_ = stream_->size_bytes();
  while (next_) {
    const std::uint64_t offset = *next_;
    const Result<bool> taken = read_.kind == ArchiveKind::cpio ? take_segment(offset) : false;
    if (!taken) return propagate(taken);
    if (*taken) continue;
    tell_of_rest(offset, /*is_unpacked=*/false);
    break;
  }
  if (parts_.size() == 1) return {};
  read_.format += fmt::format(", {} segments", parts_.size());
  stream_ = make_concatenation(std::move(parts_), whole_.bytes->name());
  return {};
}

Result<std::optional<std::uint64_t>> SegmentReader::find_next(
    const std::optional<std::uint64_t>& rest_offset, std::uint64_t stream_end) {
  if (compression_ == Compression::none) return rest_offset;
  if (rest_offset) tell_of_rest(*rest_offset, /*is_unpacked=*/true);
  return find_rest(*whole_.bytes, stream_end);
}

Result<bool> SegmentReader::take_segment(std::uint64_t offset) {
  Result<std::shared_ptr<ByteSource>> window =
      make_window(whole_.bytes, {offset, whole_.bytes->size_bytes() - offset},
                  fmt::format("{} from byte {} on", whole_.bytes->name(), offset));
  if (!window) return propagate(window);
  const Result<Compression> compression = detect_compression(**window);
  if (!compression) return propagate(compression);
  if (*compression == Compression::none) return take_plain(offset);
  return take_compressed(*window, offset, *compression);
}

Result<bool> SegmentReader::take_plain(std::uint64_t offset) {
  // At other places the kernel takes it for damage.
  constexpr std::uint64_t kAlignment = 4;
  if (offset % kAlignment != 0) return false;
  auto found = read_cpio_members(whole_.bytes, offset, options_, log_);
  if (!found) return propagate(found);
  if (!*found) return false;
  Result<void> good = append((*found)->members, parts_bytes_);
  if (!good) return propagate(good);
  parts_.push_back(whole_.bytes);
  parts_bytes_ += whole_.bytes->size_bytes();
  compression_ = Compression::none;
  next_ = (*found)->rest_offset;
  return true;
}

Result<bool> SegmentReader::take_compressed(const std::shared_ptr<ByteSource>& window,
                                            std::uint64_t offset, Compression compression) {
  auto pass = open_compressed(window, compression, stream_options_);
  if (!pass) return propagate(pass);
  auto found = read_members(**pass, window->name(), options_, log_);
  if (!found) return propagate(found);
  if (!*found || (*found)->kind != ArchiveKind::cpio) return false;
  Result<std::shared_ptr<ByteSource>> unpacked = (*pass)->finish();
  if (!unpacked) return propagate(unpacked);
  Result<void> good = append((*found)->members, parts_bytes_);
  if (!good) return propagate(good);
  parts_bytes_ += (*unpacked)->size_bytes();
  parts_.push_back(std::move(*unpacked));
  compression_ = compression;
  const auto next = find_next((*found)->rest_offset, offset + (*pass)->packed_end());
  if (!next) return propagate(next);
  next_ = *next;
  return true;
}

Result<void> SegmentReader::append(const MemberLog& members, std::uint64_t shift) {
  Member member;
  for (MemberLog::Position at = 0; at < members.end();) {
    at = members.read(at, member);
    if (member.place != MemberPlace::nowhere) member.data_offset += shift;
    if (read_.members.member_count() == options_.limits.most_members) {
      return fail(Errc::does_not_fit,
                  fmt::format("{} has more than {} members", whole_.bytes->name(),
                              options_.limits.most_members),
                  {{"max-entries"}});
    }
    if (Result<void> good = read_.members.append(member); !good) return good;
  }
  return {};
}

void SegmentReader::tell_of_rest(std::uint64_t offset, bool is_unpacked) {
  const bool is_stream = compression_ != Compression::none && !is_unpacked;
  const bool is_tar = read_.kind == ArchiveKind::tar;
  std::vector<Setting> hints;
  if (is_tar && !is_stream) hints.push_back({"ignore-zeros"});
  log_.write_with_hints(
      LogLevel::warning,
      fmt::format("{}: what follows the end of its {} at byte {}{} is left alone",
                  whole_.bytes->name(),
                  is_stream ? fmt::format("{} stream", to_string(compression_)) : "archive", offset,
                  is_unpacked ? " of what it unpacks to" : ""),
      hints);
}

}  // namespace

Result<void> read_segments(const PackedArchive& whole, std::shared_ptr<ByteSource>& stream,
                           ReadMembers& read, const ReadOptions& options,
                           const StreamOptions& stream_options, LogSink& log) {
  return SegmentReader(whole, stream, read, options, stream_options, log).run();
}

}  // namespace mkvirtfs::archive
