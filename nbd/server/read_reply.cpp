// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/read_reply.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <span>
#include <utility>

#include "nbd/server/allocation.h"
#include "support/arithmetic.h"

namespace mkvirtfs::nbd {
namespace {

/// Longer memory is sent from where it lies, shorter is copied: a segment has its price, too.
constexpr std::uint64_t kBorrowBytes = 16U << 10;

/// What is sent for holes to clients that do not know hole chunks, and as padding.
constexpr std::array<std::byte, 64U << 10> kZeroes{};

/// How much of a read is fetched at a time when other replies can go out in between.
constexpr std::uint64_t kFetchBytes = 1U << 20;

/// In front of the bytes of a data chunk: the chunk's header and the offset.
std::size_t data_header_bytes(ReplyStyle style) noexcept { return chunk_header_bytes(style) + 8; }

void write_data_header(std::span<std::byte> into, const ReplyTo& to, std::uint16_t flags,
                       std::uint64_t offset, std::uint64_t length) {
  write_chunk_header(into, to, flags, ChunkType::offset_data, 8 + length);
  store_be(into, chunk_header_bytes(to.style), offset);
}

}  // namespace

ReadReply::ReadReply(Context& context, const Request& request)
    : context_(context),
      out_(context.out),
      ahead_(context.ahead),
      to_{context.style, request.cookie, request.offset},
      range_{request.offset, request.length},
      block_bytes_(allocation_block_bytes(context.device.geometry())),
      minimum_block_bytes_(minimum_block_bytes(context.device.geometry())),
      one_chunk_(!to_.in_chunks() || (request.flags & kDf) != 0),
      position_(request.offset) {}

/// Puts the header of one_chunk_ into the batch.
void ReadReply::promise() {
  begun_ = true;
  if (!one_chunk_ || (to_.in_chunks() && range_.length == 0)) return;
  header_ = out_.mark();
  revocable_ = true;
  owed_ = range_.length;
  if (to_.in_chunks()) {
    write_data_header(out_.extend(data_header_bytes(to_.style)), to_, 0, range_.offset,
                      range_.length);
  } else {
    out_.append(encode_simple_reply(WireError::ok, to_.cookie));
  }
}

void ReadReply::advance() {
  assert(!waiting_);
  if (!ahead_is_mine_) ahead_.clear();
  ahead_is_mine_ = true;
  if (!begun_) promise();
  while (active_ && !moving_ && !broken_ && !waiting_) {
    if (failed_ && owed_ == 0) {
      append_error(out_, to_, failure_);
      active_ = false;
    } else if (!failed_ && position_ == range_.end()) {
      finish();
    } else if (lacks_room()) {
      break;
    } else if (failed_) {
      add_padding();
    } else {
      const Result<void> planned = ahead_.empty() ? plan() : Result<void>();
      if (planned) {
        add(ahead_.front());
      } else {
        fail(planned.error(), position_);
      }
    }
  }
  // The rest goes into another batch, and a chunk cannot: its length must be given now.
  if (chunk_is_open_) close_chunk(0, 0);
}

Result<void> ReadReply::plan() {
  ahead_.clear();
  bool complete = true;
  const Range rest{position_, range_.end() - position_};
  const auto take = [&](const Extent& extent) {
    Extent* const last = ahead_.count > 0 ? &ahead_.extents[ahead_.count - 1] : nullptr;
    if (last != nullptr && last->kind == ExtentKind::hole && extent.kind == ExtentKind::hole) {
      last->length += extent.length;
      return true;
    }
    if (ahead_.count == ahead_.extents.size()) {
      complete = false;
      return false;
    }
    ahead_.extents[ahead_.count++] = extent;
    return true;
  };
  const Result<void> mapped = guarded(context_.remarks, "a look at the map", [&]() -> Result<void> {
    for_each_extent(context_.device, rest, take);
    return {};
  });
  if (!mapped) return mapped;
  // A hole at the end may go on: the next plan shall see all of it.
  if (!complete && ahead_.extents[ahead_.count - 1].kind == ExtentKind::hole) --ahead_.count;
  assert(ahead_.count > 0 && ahead_.front().offset == position_);
  return {};
}

void ReadReply::wait_for_bytes() {
  waiting_ = true;
  if (chunk_is_open_) close_chunk(0, 0);
  if (revocable_ && !carried_) {
    // Nothing of it was sent: it is begun again later, and others can go before it. Not when a part
    // of it was carried here, which the next job would have to carry again.
    out_.rewind(header_);
    revocable_ = false;
    begun_ = false;
    owed_ = 0;
    position_ = range_.offset;
  }
  // One chunk comes at once when it comes: better not to stop again within it.
  const std::uint64_t rest = range_.end() - position_;
  wanted_ = {position_, one_chunk_ ? rest : std::min(rest, kFetchBytes)};
  ahead_is_mine_ = false;
}

void ReadReply::fetched(std::optional<CarriedBytes> carried) noexcept {
  waiting_ = false;
  carried_ = std::move(carried);
  // Behind what was carried it is waited for again.
  patient_until_ = carried_ && !carried_->failure ? carried_->end() : wanted_.end();
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
    case ExtentKind::derived:
      if (is_carried(piece)) {
        add_carried(piece);
      } else {
        add_by_reading(piece);
      }
      break;
    case ExtentKind::content:
      if (is_carried(piece)) {
        add_carried(piece);
      } else if (context_.file_runs && piece.length >= context_.file_run_bytes) {
        add_file_run(piece);
      } else {
        add_by_reading(piece);
      }
      break;
  }
}

void ReadReply::add_hole(const Extent& hole) {
  const Range reportable = reportable_hole({hole.offset, hole.length}, range_, block_bytes_);
  if (reportable.length == 0 || position_ >= reportable.end()) {
    add_zeroes(hole.end() - position_);
  } else if (position_ < reportable.offset) {
    add_zeroes(reportable.offset - position_);
  } else {
    if (chunk_is_open_) close_chunk(0, 0);
    const std::uint64_t length = reportable.end() - position_;
    done_sent_ = reportable.end() == range_.end();
    append_chunk_header(out_, to_, done_sent_ ? kChunkDone : std::uint16_t{0},
                        ChunkType::offset_hole, 12);
    out_.append(pack(position_, narrow<std::uint32_t>(length)));
    position_ += length;
    if (position_ == hole.end()) ++ahead_.next;
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
  const Result<bool> result = guarded(context_.remarks, "a read", [&]() -> Result<bool> {
    Result<void> read;
    if (piece.kind == ExtentKind::content) {
      if (may_wait_for(piece)) {
        return piece.store->read_at_once(piece.content, piece.content_offset, into);
      }
      read = piece.store->read(piece.content, piece.content_offset, into);
    } else {
      if (may_wait_for(piece) &&
          context_.device.may_wait(DeviceCall::read, {piece.offset, into.size()})) {
        return false;
      }
      read = context_.device.read(piece.offset, into);
    }
    if (!read) return propagate(read);
    return true;
  });
  if (result && *result) {
    added(into.size());
    return;
  }
  out_.rewind(before);
  if (result) {
    wait_for_bytes();
  } else {
    fail(result.error(), piece.offset);
  }
}

bool ReadReply::is_carried(const Extent& piece) const noexcept {
  return carried_ && piece.offset >= carried_->offset &&
         (piece.offset < carried_->end() ||
          (piece.offset == carried_->end() && carried_->failure.has_value()));
}

void ReadReply::add_carried(const Extent& piece) {
  if (piece.offset == carried_->end()) {
    fail(*carried_->failure, piece.offset);
    return;
  }
  open_chunk();
  const std::uint64_t there = std::min(piece.length, carried_->end() - piece.offset);
  const auto bytes = std::span<const std::byte>(
      carried_->bytes.get() + (piece.offset - carried_->offset), fitting(there));
  out_.append(bytes);
  added(bytes.size());
}

void ReadReply::add_file_run(const Extent& piece) {
  bool waits = false;
  const Result<ContentStore::Pin> pin =
      guarded(context_.remarks, "a read", [&]() -> Result<ContentStore::Pin> {
        waits = may_wait_for(piece) &&
                !piece.store->is_at_hand(piece.content, piece.content_offset, piece.length);
        if (waits) return ContentStore::Pin{};
        return piece.store->pin(piece.content);
      });
  if (waits) {
    wait_for_bytes();
    return;
  }
  if (!pin) {
    fail(pin.error(), piece.offset);
    return;
  }
  if (!pin->file) {
    add_by_reading(piece);
    return;
  }
  // A chunk ends with its file run: only behind it can an error be sent.
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
  const Result<void> unchanged =
      guarded(context_.remarks, "a read", [&] { return run.store->recheck(run.content, file); });
  if (!unchanged) {
    fail(unchanged.error(), run.offset);
  } else if (move.unsupported) {
    context_.file_runs = false;  // and what is still owed of this run is read
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
  if (position_ == ahead_.front().end()) ++ahead_.next;
}

std::size_t ReadReply::fitting(std::uint64_t wanted) const noexcept {
  const std::size_t room = out_.room();
  if (wanted <= room) return static_cast<std::size_t>(wanted);
  // Chunks that end at a block suit clients better, when the block leaves anything at all.
  const std::uint64_t end = round_down<std::uint64_t>(position_ + room, block_bytes_);
  if (end > position_) return static_cast<std::size_t>(end - position_);
  return room > minimum_block_bytes_ ? round_down<std::size_t>(room, minimum_block_bytes_) : room;
}

void ReadReply::open_chunk() {
  if (chunk_is_open_ || owed_ != 0) return;
  chunk_is_open_ = true;
  chunk_bytes_ = 0;
  chunk_header_ = out_.mark();
  out_.extend(data_header_bytes(to_.style));
}

void ReadReply::close_chunk(std::uint16_t flags, std::uint64_t still_to_come) {
  chunk_is_open_ = false;
  const std::uint64_t length = chunk_bytes_ + still_to_come;
  if (length == 0) {
    out_.rewind(chunk_header_);
    return;
  }
  write_data_header(out_.owned_at(chunk_header_, data_header_bytes(to_.style)), to_, flags,
                    position_ - chunk_bytes_, length);
}

void ReadReply::finish() {
  assert(owed_ == 0);
  if (chunk_is_open_) {
    close_chunk(kChunkDone, 0);
  } else if (to_.in_chunks() && revocable_) {
    // Nothing of it was sent, so that nothing can go wrong any more: the one chunk is the last.
    write_data_header(out_.owned_at(header_, data_header_bytes(to_.style)), to_, kChunkDone,
                      range_.offset, range_.length);
  } else if (to_.in_chunks() && !done_sent_) {
    append_chunk_header(out_, to_, kChunkDone, ChunkType::none, 0);
  }
  revocable_ = false;
  active_ = false;
}

void ReadReply::fail(const Error& error, std::uint64_t offset) {
  WireError sent = wire_error(error);
  // A lack of space (of a spool) is the server's: a client would stop to wait for room on its disk.
  if (sent == WireError::nospc) sent = WireError::io;
  failure_ = {sent, wire_text(error.what), offset};
  failed_ = true;
  if (chunk_is_open_) close_chunk(0, 0);
  if (revocable_) {
    out_.rewind(header_);
    revocable_ = false;
    owed_ = 0;
  } else if (!to_.in_chunks()) {
    broken_ = true;
  }
}

}  // namespace mkvirtfs::nbd
