// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/read_reply.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <span>
#include <utility>

#include "nbd/allocation.h"
#include "support/arithmetic.h"

namespace mkvirtfs::nbd {
namespace {

/// Longer memory is sent from where it lies, shorter is copied: a segment has its price, too.
constexpr std::uint64_t kBorrowBytes = 16U << 10;

/// What is sent for holes to clients that do not know hole chunks, and as padding.
constexpr std::array<std::byte, 64U << 10> kZeroes{};

/// In front of the bytes of a data chunk: the chunk's header and the offset.
constexpr std::size_t kDataHeaderBytes = kChunkHeaderBytes + 8;

std::array<std::byte, kDataHeaderBytes> encode_data_header(std::uint16_t flags,
                                                           std::uint64_t cookie,
                                                           std::uint64_t offset,
                                                           std::uint64_t length) {
  std::array<std::byte, kDataHeaderBytes> bytes;
  std::ranges::copy(
      encode_chunk_header(flags, ChunkType::offset_data, cookie, narrow<std::uint32_t>(8 + length)),
      bytes.begin());
  store_be(std::span<std::byte>(bytes), kChunkHeaderBytes, offset);
  return bytes;
}

}  // namespace

ReadReply::ReadReply(BlockDevice& device, Batch& out, bool structured, std::uint64_t file_run_bytes)
    : device_(device),
      out_(out),
      structured_(structured),
      file_run_bytes_(file_run_bytes),
      block_bytes_(allocation_block_bytes(device.geometry())) {}

void ReadReply::begin(const Request& request) {
  assert(!active_ && !moving_ && !chunk_is_open_ && owed_ == 0);
  active_ = true;
  cookie_ = request.cookie;
  range_ = {request.offset, request.length};
  position_ = request.offset;
  one_chunk_ = !structured_ || (request.flags & kDf) != 0;
  done_told_ = false;
  failed_ = false;
  planned_count_ = 0;
  planned_next_ = 0;
  if (!one_chunk_ || (structured_ && request.length == 0)) return;
  header_ = out_.mark();
  revocable_ = true;
  owed_ = request.length;
  if (structured_) {
    out_.append(encode_data_header(0, cookie_, range_.offset, range_.length));
  } else {
    out_.append(encode_simple_reply(WireError::ok, cookie_));
  }
}

void ReadReply::advance() {
  while (active_ && !moving_ && !broken_) {
    if (failed_ && owed_ == 0) {
      append_error(out_, cookie_, failure_, structured_);
      active_ = false;
    } else if (!failed_ && position_ == range_.end()) {
      finish();
    } else if (out_.is_full()) {
      break;
    } else if (failed_) {
      add_padding();
    } else {
      if (planned_next_ == planned_count_) plan();
      add(planned_[planned_next_]);
    }
  }
  // The rest goes into another batch, and a chunk can not: its length must be told now.
  if (chunk_is_open_) close_chunk(0, 0);
}

void ReadReply::plan() {
  planned_count_ = 0;
  planned_next_ = 0;
  bool complete = true;
  const Range rest{position_, range_.end() - position_};
  for_each_extent(device_, rest, [&](const Extent& extent) {
    Extent* const last = planned_count_ > 0 ? &planned_[planned_count_ - 1] : nullptr;
    if (last != nullptr && last->kind == ExtentKind::hole && extent.kind == ExtentKind::hole) {
      last->length += extent.length;
      return true;
    }
    if (planned_count_ == planned_.size()) {
      complete = false;
      return false;
    }
    planned_[planned_count_++] = extent;
    return true;
  });
  // A hole at the end may go on: the next plan shall see all of it.
  if (!complete && planned_[planned_count_ - 1].kind == ExtentKind::hole) --planned_count_;
  assert(planned_count_ > 0 && planned_[0].offset == position_);
}

void ReadReply::add(const Extent& extent) {
  const Extent piece = extent.clipped(position_, extent.end());
  switch (piece.kind) {
    case ExtentKind::hole:
      if (owed_ != 0) {
        add_zeroes(piece.length);
      } else {
        add_hole(extent);
      }
      break;
    case ExtentKind::memory:
      add_memory(piece);
      break;
    case ExtentKind::computed:
      add_by_reading(piece);
      break;
    case ExtentKind::content:
      if (file_runs_ && piece.length >= file_run_bytes_) {
        add_file_run(piece);
      } else {
        add_by_reading(piece);
      }
      break;
  }
}

void ReadReply::add_hole(const Extent& hole) {
  const Range told = tellable_hole({hole.offset, hole.length}, range_, block_bytes_);
  if (told.length == 0 || position_ >= told.end()) {
    add_zeroes(hole.end() - position_);
  } else if (position_ < told.offset) {
    add_zeroes(told.offset - position_);
  } else {
    if (chunk_is_open_) close_chunk(0, 0);
    const std::uint64_t length = told.end() - position_;
    done_told_ = told.end() == range_.end();
    out_.append(encode_chunk_header(done_told_ ? kChunkDone : std::uint16_t{0},
                                    ChunkType::offset_hole, cookie_, 12));
    out_.append(pack(position_, narrow<std::uint32_t>(length)));
    position_ += length;
    if (position_ == hole.end()) ++planned_next_;
  }
}

void ReadReply::add_zeroes(std::uint64_t wanted) {
  open_chunk();
  const auto zeroes = std::span(kZeroes).first(std::min<std::uint64_t>(wanted, kZeroes.size()));
  if (zeroes.size() < kBorrowBytes && zeroes.size() <= out_.room()) {
    out_.append(zeroes);
  } else {
    out_.borrow(zeroes);
  }
  added(zeroes.size());
}

void ReadReply::add_memory(const Extent& piece) {
  open_chunk();
  const std::span<const std::byte> bytes(piece.memory, piece.length);
  if (bytes.size() < kBorrowBytes && bytes.size() <= out_.room()) {
    out_.append(bytes);
  } else {
    out_.borrow(bytes);
  }
  added(bytes.size());
}

void ReadReply::add_by_reading(const Extent& piece) {
  open_chunk();
  const Batch::Mark before = out_.mark();
  const std::span<std::byte> into = out_.extend(fitting(piece.length));
  const Result<void> result = piece.kind == ExtentKind::content
                                  ? piece.store->read(piece.content, piece.content_offset, into)
                                  : device_.read(piece.offset, into);
  if (result) {
    added(into.size());
  } else {
    out_.rewind(before);
    fail(result.error(), piece.offset);
  }
}

void ReadReply::add_file_run(const Extent& piece) {
  const Result<ContentStore::Pin> pin = piece.store->pin(piece.content);
  if (!pin) {
    fail(pin.error(), piece.offset);
    return;
  }
  if (!pin->file) {
    add_by_reading(piece);
    return;
  }
  // A chunk ends with its file run: only behind it can an error be told.
  if (owed_ == 0) {
    open_chunk();
    close_chunk(0, piece.length);
    owed_ = piece.length;
  }
  out_.set_file({pin->file, pin->file_offset + piece.content_offset, piece.length});
  moving_ = true;
  moving_extent_ = piece;
  moving_file_ = pin->file;
}

void ReadReply::batch_sent(const FileMove& move) {
  assert(out_.empty() && !chunk_is_open_);
  revocable_ = false;
  if (!moving_) return;
  moving_ = false;
  const PinnedFile file = std::exchange(moving_file_, PinnedFile());
  const Extent& run = moving_extent_;
  assert(active_ && move.moved_bytes <= run.length);
  if (move.moved_bytes > 0) added(move.moved_bytes);
  const Result<void> unchanged = run.store->recheck(run.content, file);
  if (!unchanged) {
    fail(unchanged.error(), run.offset);
  } else if (move.unsupported) {
    file_runs_ = false;  // and what is still owed of this run is read
  } else if (move.moved_bytes < run.length) {
    fail({Errc::source_changed, 0,
          fmt::format("{} ended {} bytes early", run.store->name(run.content),
                      run.length - move.moved_bytes)},
         run.offset + move.moved_bytes);
  }
}

void ReadReply::add_padding() {
  const auto padding = std::span(kZeroes).first(std::min<std::uint64_t>(owed_, kZeroes.size()));
  out_.borrow(padding);
  owed_ -= padding.size();
}

void ReadReply::added(std::uint64_t count) {
  position_ += count;
  if (owed_ != 0) {
    assert(count <= owed_);
    owed_ -= count;
  } else {
    chunk_bytes_ += count;
  }
  if (position_ == planned_[planned_next_].end()) ++planned_next_;
}

std::size_t ReadReply::fitting(std::uint64_t wanted) const noexcept {
  const std::size_t room = out_.room();
  if (wanted <= room) return static_cast<std::size_t>(wanted);
  // Chunks that end at a block suit clients better, when the block leaves anything at all.
  const std::uint64_t end = round_down<std::uint64_t>(position_ + room, block_bytes_);
  return end > position_ ? static_cast<std::size_t>(end - position_) : room;
}

void ReadReply::open_chunk() {
  if (chunk_is_open_ || owed_ != 0) return;
  chunk_is_open_ = true;
  chunk_bytes_ = 0;
  chunk_header_ = out_.mark();
  out_.extend(kDataHeaderBytes);
}

void ReadReply::close_chunk(std::uint16_t flags, std::uint64_t still_to_come) {
  chunk_is_open_ = false;
  const std::uint64_t length = chunk_bytes_ + still_to_come;
  if (length == 0) {
    out_.rewind(chunk_header_);
    return;
  }
  std::ranges::copy(encode_data_header(flags, cookie_, position_ - chunk_bytes_, length),
                    out_.owned_at(chunk_header_, kDataHeaderBytes).begin());
}

void ReadReply::finish() {
  assert(owed_ == 0);
  if (chunk_is_open_) {
    close_chunk(kChunkDone, 0);
  } else if (structured_ && revocable_) {
    // Nothing of it was sent, so that nothing can go wrong any more: the one chunk is the last.
    std::ranges::copy(encode_data_header(kChunkDone, cookie_, range_.offset, range_.length),
                      out_.owned_at(header_, kDataHeaderBytes).begin());
  } else if (structured_ && !done_told_) {
    out_.append(encode_chunk_header(kChunkDone, ChunkType::none, cookie_, 0));
  }
  revocable_ = false;
  active_ = false;
}

void ReadReply::fail(const Error& error, std::uint64_t offset) {
  failure_ = {wire_error(error), wire_text(error.what), offset};
  failed_ = true;
  if (chunk_is_open_) close_chunk(0, 0);
  if (revocable_) {
    out_.rewind(header_);
    revocable_ = false;
    owed_ = 0;
  } else if (!structured_) {
    broken_ = true;
  }
}

}  // namespace mkvirtfs::nbd
