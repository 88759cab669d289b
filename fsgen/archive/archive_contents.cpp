// SPDX-License-Identifier: BSD-3-Clause
// A file's bytes are a range of the archive's stream or of its spool, with the holes of a sparse
// file cut out, or a deflated member that is unpacked on demand; the members that were used last
// are kept.
#include "fsgen/archive/archive_contents.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>
#include <vector>

namespace mkvirtfs::archive {
namespace {

constexpr std::size_t kMostKept = 4096;

NodeNo node_of(ContentNo content) { return node_no(content); }

}  // namespace

ArchiveContents::ArchiveContents(std::shared_ptr<const SourceTree> tree, ContentPlaces places,
                                 Sources sources, StreamOptions stream_options)
    : tree_(std::move(tree)),
      places_(std::move(places)),
      sources_(std::move(sources)),
      stream_options_(std::move(stream_options)) {
  assert(places_.size() == tree_->node_count());
}

std::unexpected<Error> ArchiveContents::named(NodeNo no, Error error) const {
  return std::unexpected(with_context(tree_->path(no), std::move(error)));
}

Result<ArchiveContents::Bytes> ArchiveContents::bytes_of(NodeNo no) {
  switch (places_.place(no)) {
    case MemberPlace::stored:
      return Bytes{sources_.stream, places_.lies_at(no), {}};
    case MemberPlace::in_pieces:
      return Bytes{sources_.stream, 0, places_.pieces(no)};
    case MemberPlace::spooled:
      return Bytes{sources_.spool, places_.lies_at(no), {}};
    case MemberPlace::deflated: {
      Result<std::shared_ptr<ByteSource>> source = deflated(no);
      if (!source) return propagate(source);
      return Bytes{std::move(*source), 0, {}};
    }
    default:
      assert(false);
      return Bytes{};
  }
}

Result<std::shared_ptr<ByteSource>> ArchiveContents::deflated(NodeNo no) {
  {
    const MutexLock lock(mutex_);
    if (const auto kept = deflated_.find(no); kept != deflated_.end()) {
      kept->second.last_use = ++clock_;
      return kept->second.source;
    }
  }
  const ContentPlaces::Deflated& place = places_.deflated(no);
  Result<std::shared_ptr<ByteSource>> made = make_deflate_member(
      sources_.stream, {place.offset, place.packed_bytes}, tree_->node(no).size_bytes, place.crc32,
      fmt::format("{}: {}", sources_.stream->name(), tree_->path(no)), stream_options_);
  if (!made) return made;

  std::vector<std::shared_ptr<ByteSource>> given_up;  // ended after the lock is left
  const MutexLock lock(mutex_);
  const auto [kept, is_new] = deflated_.try_emplace(no, Kept{std::move(*made), 0});
  kept->second.last_use = ++clock_;
  std::shared_ptr<ByteSource> source = kept->second.source;
  if (deflated_.size() > kMostKept) {
    // Half of them at a time, so that it is seldom.
    const std::uint64_t oldest = clock_ - kMostKept / 2;
    std::erase_if(deflated_, [&](auto& each) {
      if (each.second.last_use > oldest) return false;
      given_up.push_back(std::move(each.second.source));
      return true;
    });
  }
  return source;
}

template <class Visit>
Result<void> ArchiveContents::for_each_run(NodeNo no, std::uint64_t offset,
                                           std::span<std::byte> out, Visit visit) const {
  const ContentPlaces::Sparse& sparse = places_.sparse(no);
  const std::uint64_t end = offset + out.size();
  Range dense;
  const std::span<const Range> runs = tree_->data_runs(no, dense);
  std::uint64_t at = offset;
  for (auto run = std::ranges::upper_bound(runs, offset, {}, &Range::end);
       run != runs.end() && run->offset < end; ++run) {
    const std::uint64_t from = std::max(run->offset, offset);
    const std::uint64_t to = std::min(run->end(), end);
    std::ranges::fill(out.subspan(at - offset, from - at), std::byte{0});
    const std::uint64_t skipped = sparse.skipped[static_cast<std::size_t>(run - runs.begin())];
    if (Result<void> good =
            visit(skipped + (from - run->offset), out.subspan(from - offset, to - from));
        !good) {
      return good;
    }
    at = to;
  }
  std::ranges::fill(out.subspan(at - offset), std::byte{0});
  return {};
}

template <class Visit>
Result<void> ArchiveContents::for_each_piece(const Bytes& bytes, Range range, Visit visit) {
  if (bytes.pieces.empty()) return visit(bytes.offset + range.offset, Range{0, range.length});
  auto piece =
      std::ranges::upper_bound(bytes.pieces, range.offset, {}, &ContentPlaces::Piece::begins_at) -
      1;
  for (std::uint64_t done = 0; done < range.length; ++piece) {
    const std::uint64_t skipped = range.offset + done - piece->begins_at;
    const std::uint64_t length = std::min(range.length - done, piece->range.length - skipped);
    if (Result<void> good = visit(piece->range.offset + skipped, Range{done, length}); !good) {
      return good;
    }
    done += length;
  }
  return {};
}

bool ArchiveContents::lies_somewhere(NodeNo no) const noexcept {
  return places_.place(no) != MemberPlace::nowhere && places_.place(no) != MemberPlace::unreadable;
}

Result<void> ArchiveContents::read_nothing(NodeNo no, std::span<std::byte> out) const {
  if (places_.place(no) == MemberPlace::unreadable) {
    return named(no, {Errc::unreadable, 0, places_.contents(no)});
  }
  std::ranges::fill(out, std::byte{0});  // nothing but a hole
  return {};
}

Result<void> ArchiveContents::read(ContentNo content, std::uint64_t offset,
                                   std::span<std::byte> out) {
  const NodeNo no = node_of(content);
  assert(tree_->node(no).is_regular());
  assert(offset <= tree_->node(no).size_bytes && out.size() <= tree_->node(no).size_bytes - offset);
  if (out.empty()) return {};
  if (places_.place(no) == MemberPlace::host) return sources_.hosts->read(content, offset, out);
  if (!lies_somewhere(no)) return read_nothing(no, out);
  const Result<Bytes> bytes = bytes_of(no);
  if (!bytes) return named(no, bytes.error());
  const auto read_part = [&](std::uint64_t at, std::span<std::byte> part) {
    return for_each_piece(*bytes, {at, part.size()}, [&](std::uint64_t from, Range piece) {
      return bytes->source->read(from, part.subspan(piece.offset, piece.length));
    });
  };
  Result<void> done =
      places_.is_sparse(no) ? for_each_run(no, offset, out, read_part) : read_part(offset, out);
  if (!done) return named(no, std::move(done.error()));
  return done;
}

Result<bool> ArchiveContents::read_at_once(ContentNo content, std::uint64_t offset,
                                           std::span<std::byte> out) {
  const NodeNo no = node_of(content);
  if (out.empty()) return true;
  if (places_.place(no) == MemberPlace::host)
    return sources_.hosts->read_at_once(content, offset, out);
  if (!lies_somewhere(no)) {
    if (Result<void> good = read_nothing(no, out); !good) return propagate(good);
    return true;
  }
  const Result<Bytes> bytes = bytes_of(no);
  if (!bytes) return named(no, bytes.error());
  bool all = true;
  const auto read_part = [&](std::uint64_t at, std::span<std::byte> part) {
    return for_each_piece(
        *bytes, {at, part.size()}, [&](std::uint64_t from, Range piece) -> Result<void> {
          if (!all) return {};
          const Result<bool> done =
              bytes->source->read_at_once(from, part.subspan(piece.offset, piece.length));
          if (!done) return propagate(done);
          all = *done;
          return {};
        });
  };
  const Result<void> done =
      places_.is_sparse(no) ? for_each_run(no, offset, out, read_part) : read_part(offset, out);
  if (!done) return named(no, done.error());
  return all;
}

bool ArchiveContents::is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) {
  const NodeNo no = node_of(content);
  if (places_.place(no) == MemberPlace::host) {
    return sources_.hosts->is_at_hand(content, offset, length);
  }
  // Only what can be pinned is asked for.
  if (!lies_somewhere(no) || places_.is_sparse(no) || places_.place(no) == MemberPlace::in_pieces) {
    return false;
  }
  const Result<Bytes> bytes = bytes_of(no);
  return bytes && bytes->source->is_at_hand({bytes->offset + offset, length});
}

void ArchiveContents::fetch(ContentNo content, std::uint64_t offset, std::uint64_t length) {
  const NodeNo no = node_of(content);
  if (places_.place(no) == MemberPlace::host) return sources_.hosts->fetch(content, offset, length);
  if (!lies_somewhere(no) || length == 0) return;
  const Result<Bytes> bytes = bytes_of(no);
  if (!bytes) return;
  const auto fetch_part = [&](Range range) {
    [[maybe_unused]] const Result<void> all =
        for_each_piece(*bytes, range, [&](std::uint64_t from, Range piece) {
          bytes->source->fetch({from, piece.length});
          return Result<void>();
        });
  };
  if (!places_.is_sparse(no)) return fetch_part({offset, length});
  Range dense;
  const std::span<const Range> runs = tree_->data_runs(no, dense);
  const std::uint64_t end = offset + length;
  for (auto run = std::ranges::upper_bound(runs, offset, {}, &Range::end);
       run != runs.end() && run->offset < end; ++run) {
    const std::uint64_t from = std::max(run->offset, offset);
    const std::uint64_t skipped =
        places_.sparse(no).skipped[static_cast<std::size_t>(run - runs.begin())];
    fetch_part({skipped + (from - run->offset), std::min(run->end(), end) - from});
  }
}

bool ArchiveContents::keeps_fetched(ContentNo content) {
  const NodeNo no = node_of(content);
  if (places_.place(no) == MemberPlace::host) return sources_.hosts->keeps_fetched(content);
  if (!lies_somewhere(no)) return true;
  const Result<Bytes> bytes = bytes_of(no);
  return !bytes || bytes->source->keeps_fetched();
}

Result<ContentStore::Pin> ArchiveContents::pin(ContentNo content) {
  const NodeNo no = node_of(content);
  if (places_.place(no) == MemberPlace::host) return sources_.hosts->pin(content);
  const bool is_window =
      places_.place(no) == MemberPlace::stored || places_.place(no) == MemberPlace::spooled;
  if (!is_window || places_.is_sparse(no)) return Pin{};
  const Result<Bytes> bytes = bytes_of(no);
  if (!bytes) return named(no, bytes.error());
  Result<Pin> pinned = bytes->source->pin();
  if (!pinned) return named(no, std::move(pinned.error()));
  pinned->file_offset += bytes->offset;
  return pinned;
}

Result<void> ArchiveContents::recheck(ContentNo content, const PinnedFile& file) {
  const NodeNo no = node_of(content);
  if (places_.place(no) == MemberPlace::host) return sources_.hosts->recheck(content, file);
  const Result<Bytes> bytes = bytes_of(no);
  if (!bytes) return named(no, bytes.error());
  Result<void> same = bytes->source->recheck(file);
  if (!same) return named(no, std::move(same.error()));
  return same;
}

std::string ArchiveContents::name(ContentNo content) const { return tree_->path(node_of(content)); }

std::optional<ContentStore::HostFile> ArchiveContents::host_file(ContentNo content) const {
  const NodeNo no = node_of(content);
  if (no >= places_.size() || places_.place(no) != MemberPlace::host) return std::nullopt;
  std::optional<HostFile> file = sources_.hosts->host_file(content);
  if (file) file->path = sources_.hosts->name(content);
  return file;
}

}  // namespace mkvirtfs::archive
