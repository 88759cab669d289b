// SPDX-License-Identifier: BSD-3-Clause
// Zstandard (RFC 8878), by libzstd. Points are the beginnings of frames and, where these are long,
// places inside of them: their state is all that a decoder has in memory.
#define ZSTD_STATIC_LINKING_ONLY  // contexts in memory of ours
#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <new>
#include <utility>

#include "fsgen/stream/decoder.h"
#include "support/byte_order.h"
#include "support/mutex.h"
#include "support/text.h"

namespace mkvirtfs {

/// Memory in which decoders of one stream work, one after the other. libzstd keeps all that it
/// knows of a stream there, its window included, and nothing anywhere else
/// (ZSTD_initStaticDStream). There are pointers in it to itself, so what is copied away goes on
/// only where it came from: in this memory, of this process.
class ZstdWorkspace {
 public:
  explicit ZstdWorkspace(std::uint64_t window_bytes)
      : window_bytes_(std::max<std::uint64_t>(window_bytes, 1024)),
        size_(ZSTD_estimateDStreamSize(static_cast<std::size_t>(window_bytes_))),
        words_((size_ + sizeof(std::uint64_t) - 1) / sizeof(std::uint64_t)) {}

  std::uint64_t window_bytes() const noexcept { return window_bytes_; }
  std::size_t size() const noexcept { return size_; }

  Mutex mutex;
  std::span<std::byte> bytes() REQUIRES(mutex) {
    return std::as_writable_bytes(std::span(words_)).first(size_);
  }
  class WorkspaceDecoder* user GUARDED_BY(mutex) = nullptr;  ///< whose state stands here

 private:
  const std::uint64_t window_bytes_;
  const std::size_t size_;
  std::vector<std::uint64_t> words_;  // aligned
};

namespace {

constexpr std::size_t kForwardPieceBytes = std::size_t{256} << 10;
constexpr std::size_t kPieceBytes = std::size_t{64} << 10;

// Point::kind: a frame begins here, or this is inside of one.
constexpr std::uint8_t kFrame = 0;
constexpr std::uint8_t kInside = 1;

enum class Next : std::uint8_t { frame, end, other };

/// What the next frame would begin with: a part of a magic number is a frame that is cut off.
Result<Next> look_for_frame(PackedInput& input) {
  std::array<std::byte, 4> bytes{};
  const Result<std::size_t> count = input.look(bytes);
  if (!count) return propagate(count);
  if (*count == 0) return Next::end;
  const auto begins_as = [&](std::uint32_t magic, std::uint32_t mask) {
    const std::uint32_t known = *count == bytes.size() ? UINT32_MAX : (1U << (8 * *count)) - 1;
    return ((load_le<std::uint32_t>(bytes) ^ magic) & mask & known) == 0;
  };
  const bool is_frame = begins_as(ZSTD_MAGICNUMBER, UINT32_MAX) ||
                        begins_as(ZSTD_MAGIC_SKIPPABLE_START, ZSTD_MAGIC_SKIPPABLE_MASK);
  return is_frame ? Next::frame : Next::other;
}

class ZstdDecoder final : public Decoder {
 public:
  ZstdDecoder(const DecoderInput& input, const Point& point, StreamObserver* observer)
      : input_(input.packed, point.packed, observer != nullptr ? kForwardPieceBytes : kPieceBytes),
        observer_(observer),
        zstd_(ZSTD_createDCtx()),
        memory_limit_bytes_(input.memory_limit_bytes),
        unpacked_(point.unpacked),
        any_frame_(point.packed != 0) {
    if (zstd_ == nullptr) throw std::bad_alloc();
    const ZSTD_bounds bounds = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);
    const int largest_log = static_cast<int>(std::bit_width(input.memory_limit_bytes)) - 1;
    ZSTD_DCtx_setParameter(zstd_, ZSTD_d_windowLogMax,
                           std::clamp(largest_log, bounds.lowerBound, bounds.upperBound));
  }
  ~ZstdDecoder() override { ZSTD_freeDCtx(zstd_); }
  ZstdDecoder(const ZstdDecoder&) = delete;
  ZstdDecoder& operator=(const ZstdDecoder&) = delete;

  std::uint64_t packed_position() const noexcept override { return input_.position(); }
  std::uint64_t memory_bytes() const noexcept override {
    return ZSTD_sizeof_DCtx(zstd_) + input_.piece_bytes();
  }

 protected:
  Result<void> decode_more(std::span<std::byte> out, std::size_t& done) override;

 private:
  PackedInput input_;
  StreamObserver* const observer_;
  ZSTD_DCtx* const zstd_;
  const std::uint64_t memory_limit_bytes_;
  std::uint64_t unpacked_;
  bool inside_frame_ = false;
  bool any_frame_;
};

Result<void> ZstdDecoder::decode_more(std::span<std::byte> out, std::size_t& done) {
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  while (to.pos < to.size) {
    const auto there = input_.peek();
    if (!there) return propagate(there);
    if (!inside_frame_ && any_frame_) {
      const Result<Next> next = look_for_frame(input_);
      if (!next) return propagate(next);
      if (*next != Next::frame) break;
    }
    if (there->empty() && !inside_frame_) break;
    any_frame_ = true;
    if (!inside_frame_ && observer_ != nullptr) {
      const Result<void> noted = observer_->point(
          {.unpacked = unpacked_, .packed = input_.position(), .bits = 0, .kind = kFrame}, {});
      if (!noted) return propagate(noted);
    }
    ZSTD_inBuffer from{there->data(), there->size(), 0};
    const std::size_t before = to.pos;
    const std::size_t status = ZSTD_decompressStream(zstd_, &to, &from);
    input_.consume(from.pos);
    unpacked_ += to.pos - before;
    done = to.pos;
    if (ZSTD_isError(status) != 0) {
      return input_.damaged(fmt::format("{} (its window may take {})", ZSTD_getErrorName(status),
                                        human_size(memory_limit_bytes_)));
    }
    inside_frame_ = status != 0;
    if (there->empty() && inside_frame_ && to.pos == before) {
      return input_.damaged("it ends in the middle of a frame");
    }
  }
  return {};
}

}  // namespace

/// A decoder whose state stands in the workspace, or lies aside while another one works there.
class WorkspaceDecoder final : public Decoder {
 public:
  WorkspaceDecoder(const DecoderInput& input, const Point& point, std::span<const std::byte> state,
                   StreamObserver* observer)
      : input_(input.packed, point.packed, observer != nullptr ? kForwardPieceBytes : kPieceBytes),
        workspace_(input.zstd_workspace),
        observer_(observer),
        unpacked_(point.unpacked),
        inside_frame_(point.kind == kInside),
        any_frame_(point.packed != 0),
        aside_(state.begin(), state.end()) {}
  ~WorkspaceDecoder() override {
    const MutexLock lock(workspace_->mutex);
    if (workspace_->user == this) workspace_->user = nullptr;
  }
  WorkspaceDecoder(const WorkspaceDecoder&) = delete;
  WorkspaceDecoder& operator=(const WorkspaceDecoder&) = delete;

  std::uint64_t packed_position() const noexcept override { return input_.position(); }
  std::uint64_t memory_bytes() const noexcept override {
    return workspace_->size() + input_.piece_bytes();
  }

 protected:
  Result<void> decode_more(std::span<std::byte> out, std::size_t& done) override;

 private:
  /// Has the workspace to itself from then on, until the lock is given up.
  ZSTD_DStream* enter() REQUIRES(workspace_->mutex);
  Result<void> note_point(std::span<const std::byte> state, std::uint8_t kind);

  PackedInput input_;
  const std::shared_ptr<ZstdWorkspace> workspace_;
  StreamObserver* const observer_;
  std::uint64_t unpacked_;
  bool inside_frame_;
  bool any_frame_;
  ZSTD_DStream* zstd_ = nullptr;  // in the workspace; the same for every decoder
  /// Guarded by the workspace's lock, which the decoder that pushes this one aside holds. Empty: it
  /// stands in the workspace, or has not begun.
  std::vector<std::byte> aside_;
};

ZSTD_DStream* WorkspaceDecoder::enter() {
  const std::span<std::byte> bytes = workspace_->bytes();
  if (workspace_->user == this) return zstd_;
  if (WorkspaceDecoder* const other = workspace_->user) {
    other->aside_.assign(bytes.begin(), bytes.end());
    workspace_->user = nullptr;
  }
  // What it begins with is the context itself.
  zstd_ = ZSTD_initStaticDStream(bytes.data(), bytes.size());
  if (zstd_ == nullptr) throw std::bad_alloc();
  if (!aside_.empty()) {
    std::ranges::copy(aside_, bytes.begin());
    aside_ = {};
  }
  workspace_->user = this;
  return zstd_;
}

Result<void> WorkspaceDecoder::note_point(std::span<const std::byte> state, std::uint8_t kind) {
  return observer_->point(
      {.unpacked = unpacked_, .packed = input_.position(), .bits = 0, .kind = kind}, state);
}

Result<void> WorkspaceDecoder::decode_more(std::span<std::byte> out, std::size_t& done) {
  const MutexLock lock(workspace_->mutex);
  ZSTD_DStream* const zstd = enter();
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  while (to.pos < to.size) {
    const auto there = input_.peek();
    if (!there) return propagate(there);
    if (!inside_frame_ && any_frame_) {
      const Result<Next> next = look_for_frame(input_);
      if (!next) return propagate(next);
      if (*next != Next::frame) break;
    }
    if (there->empty() && !inside_frame_) break;
    any_frame_ = true;
    if (observer_ != nullptr) {
      Result<void> noted;
      if (!inside_frame_) {
        noted = note_point({}, kFrame);
      } else if (observer_->wants_state_at(unpacked_)) {
        noted = note_point(workspace_->bytes(), kInside);
      }
      if (!noted) return noted;
    }
    ZSTD_inBuffer from{there->data(), there->size(), 0};
    const std::size_t before = to.pos;
    const std::size_t status = ZSTD_decompressStream(zstd, &to, &from);
    input_.consume(from.pos);
    unpacked_ += to.pos - before;
    done = to.pos;
    if (ZSTD_isError(status) != 0) return input_.damaged(ZSTD_getErrorName(status));
    inside_frame_ = status != 0;
    if (there->empty() && inside_frame_ && to.pos == before) {
      return input_.damaged("it ends in the middle of a frame");
    }
  }
  return {};
}

Result<std::unique_ptr<Decoder>> make_zstd_decoder(const DecoderInput& input, const Point& point,
                                                   std::span<const std::byte> state,
                                                   StreamObserver* observer) {
  if (!input.zstd_workspace) {
    if (point.kind != kFrame) {
      return fail(Errc::io, fmt::format("{}: a broken index", input.packed->name()));
    }
    return std::make_unique<ZstdDecoder>(input, point, observer);
  }
  return std::make_unique<WorkspaceDecoder>(input, point, state, observer);
}

std::shared_ptr<ZstdWorkspace> make_zstd_workspace(std::uint64_t window_bytes) {
  return std::make_shared<ZstdWorkspace>(window_bytes);
}

std::size_t state_bytes_of(const ZstdWorkspace& workspace) noexcept { return workspace.size(); }
std::uint64_t window_bytes_of(const ZstdWorkspace& workspace) noexcept {
  return workspace.window_bytes();
}

Result<ZstdFrames> find_zstd_frames(ByteSource& packed) {
  // RFC 8878, 3.1.1: only the headers of frames and blocks are looked at. The decoder
  // reports what is wrong with them.
  constexpr std::uint32_t kFrameMagic = 0xfd2fb528;
  constexpr std::uint32_t kSkippableMagic = 0x184d2a50;
  const std::uint64_t size_bytes = packed.size_bytes();
  ZstdFrames frames;
  std::uint64_t at = 0;
  while (at < size_bytes) {
    std::array<std::byte, 18> header{};
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(header.size(), size_bytes - at));
    if (const Result<void> read = packed.read(at, std::span(header).first(count)); !read) {
      return propagate(read);
    }
    const auto magic = load_le<std::uint32_t>(header);
    if ((magic & 0xfffffff0U) == kSkippableMagic) {
      at += 8 + std::uint64_t{load_le<std::uint32_t>(header, 4)};
      continue;
    }
    ZSTD_frameHeader fields{};
    if (magic != kFrameMagic || ZSTD_getFrameHeader(&fields, header.data(), count) != 0) break;
    frames.largest_window_bytes =
        std::max<std::uint64_t>(frames.largest_window_bytes, fields.windowSize);
    if (fields.frameContentSize != ZSTD_CONTENTSIZE_UNKNOWN) {
      frames.largest_unpacked_bytes =
          std::max<std::uint64_t>(frames.largest_unpacked_bytes, fields.frameContentSize);
    }
    const std::uint64_t frame_at = at;
    at += fields.headerSize;
    for (bool is_last = false; !is_last;) {
      std::array<std::byte, 4> block{};
      if (at >= size_bytes || size_bytes - at < 3) return frames;
      if (const Result<void> read = packed.read(at, std::span(block).first(3)); !read) {
        return propagate(read);
      }
      const auto word = load_le<std::uint32_t>(block);
      constexpr std::uint32_t kRunLengthBlock = 1;
      is_last = (word & 1) != 0;
      at += 3 + std::uint64_t{(word >> 1 & 3) == kRunLengthBlock ? 1 : word >> 3};
      frames.largest_packed_bytes = std::max(frames.largest_packed_bytes, at - frame_at);
    }
    if (fields.checksumFlag != 0) at += 4;
  }
  return frames;
}

}  // namespace mkvirtfs
