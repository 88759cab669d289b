// SPDX-License-Identifier: BSD-3-Clause
// .xz by its own index, and .lzma and .lz from their beginning, by liblzma.
#include <fmt/format.h>
#include <lzma.h>

#include <algorithm>
#include <array>
#include <new>
#include <optional>
#include <span>
#include <string_view>
#include <thread>
#include <utility>

#include "fsgen/stream/decoder.h"
#include "support/parallel.h"
#include "support/text.h"
#include "support/thread.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kForwardPieceBytes = std::size_t{256} << 10;
constexpr std::size_t kPieceBytes = std::size_t{64} << 10;

std::string_view text_of(lzma_ret status) noexcept {
  switch (status) {
    case LZMA_FORMAT_ERROR:
      return "its header is none";
    case LZMA_OPTIONS_ERROR:
      return "it asks for what liblzma does not know";
    case LZMA_BUF_ERROR:
      return "it ends in the middle of compressed data";
    default:
      return "this is no compressed data, or its checksum is wrong";
  }
}

/// How many threads liblzma may have beside the reader's, of those that a stream may.
unsigned threads_of_liblzma(unsigned stream_threads) noexcept {
  constexpr unsigned kMost = 4;
  if (stream_threads == 0) return thread_count(0, kMost);
  return std::clamp(stream_threads - 1, 1U, kMost);
}

/// liblzma reports a thread that it cannot start as a lack of memory, in the middle of the stream.
bool can_start_thread() {
  Result<std::thread> thread = start_thread("start a thread", [] {});
  if (thread) thread->join();
  return thread.has_value();
}

/// Runs any of liblzma's decoders.
class LzmaDecoder final : public Decoder {
 public:
  LzmaDecoder(const DecoderInput& input, std::uint64_t offset, std::size_t piece_bytes)
      : input_(input.packed, offset, piece_bytes),
        memory_limit_bytes_(input.memory_limit_bytes),
        threads_(threads_of_liblzma(input.threads)) {}
  ~LzmaDecoder() override {
    lzma_end(&lzma_);
    lzma_filters_free(filters_.data(), nullptr);
  }
  LzmaDecoder(const LzmaDecoder&) = delete;
  LzmaDecoder& operator=(const LzmaDecoder&) = delete;

  /// All of it, from the beginning on: the first stream of an .xz, the first member of an .lz.
  Result<void> begin_stream(Compression compression, DecodeOrder order);
  /// One block of an .xz.
  Result<void> begin_block(std::uint8_t check);

  std::uint64_t packed_position() const noexcept override {
    return end_.value_or(input_.position());
  }
  std::uint64_t memory_bytes() const noexcept override {
    return std::max(memory_bytes_, lzma_memusage(&lzma_)) + input_.piece_bytes();
  }

 protected:
  Result<void> decode_more(std::span<std::byte> out, std::size_t& done) override;

 private:
  /// Behind a stream: begins the next one, or ends.
  Result<void> end_stream();
  /// Whether an .xz or .lz begins here, or what may be one that is cut off.
  Result<bool> is_at_stream();
  /// How many zeroes there are, which are passed over.
  Result<std::uint64_t> skip_padding();
  /// For any status that is no success.
  std::unexpected<Error> failed(lzma_ret status, std::uint64_t needs_bytes) const;

  PackedInput input_;
  const std::uint64_t memory_limit_bytes_;
  const unsigned threads_;  // of liblzma
  lzma_stream lzma_ = LZMA_STREAM_INIT;
  // liblzma keeps pointers to the block while it decodes it.
  lzma_block block_{};
  std::array<lzma_filter, LZMA_FILTERS_MAX + 1> filters_{
      lzma_filter{.id = LZMA_VLI_UNKNOWN, .options = nullptr}};
  std::uint64_t memory_bytes_ = 0;
  // Of what follows a stream: `none` when that is all.
  Compression next_ = Compression::none;
  DecodeOrder order_ = DecodeOrder::stretch;
  std::optional<std::uint64_t> end_;  // packed
};

std::unexpected<Error> LzmaDecoder::failed(lzma_ret status, std::uint64_t needs_bytes) const {
  if (status == LZMA_MEM_ERROR) throw std::bad_alloc();
  if (status == LZMA_MEMLIMIT_ERROR) {
    return fail(
        Errc::unsupported,
        fmt::format("{} needs {} of memory to be decoded, and {} are allowed", input_.name(),
                    human_size(needs_bytes), human_size(memory_limit_bytes_)));
  }
  return input_.damaged(text_of(status));
}

Result<void> LzmaDecoder::begin_stream(Compression compression, DecodeOrder order) {
  lzma_ret status = LZMA_PROG_ERROR;
  // liblzma would go on by itself, but takes what follows and is no stream for damage.
  if (compression != Compression::lzma) next_ = compression;
  order_ = order;
  if (compression == Compression::lzma) {
    status = lzma_alone_decoder(&lzma_, memory_limit_bytes_);
  } else if (compression == Compression::lzip) {
    status = lzma_lzip_decoder(&lzma_, memory_limit_bytes_, 0);
  } else if (order == DecodeOrder::whole_stream && threads_ > 1 && can_start_thread()) {
    // Blocks are decoded side by side, as far as they say how long they are, and memory lasts.
    lzma_mt options{};
    options.threads = threads_;
    options.memlimit_threading = memory_limit_bytes_;
    options.memlimit_stop = memory_limit_bytes_;
    status = lzma_stream_decoder_mt(&lzma_, &options);
  } else {
    status = lzma_stream_decoder(&lzma_, memory_limit_bytes_, 0);
  }
  if (status != LZMA_OK) return failed(status, 0);
  return {};
}

Result<void> LzmaDecoder::begin_block(std::uint8_t check) {
  const auto first = input_.peek();
  if (!first) return propagate(first);
  if (first->empty() || first->front() == std::byte{0}) return input_.damaged("no block is there");
  block_.version = 1;
  block_.check = static_cast<lzma_check>(check);
  block_.filters = filters_.data();
  block_.header_size =
      lzma_block_header_size_decode(std::to_integer<std::uint32_t>(first->front()));
  const auto header = input_.take(block_.header_size);
  if (!header) return propagate(header);
  if (!*header) return input_.damaged("it ends in the header of a block");
  lzma_ret status = lzma_block_header_decode(
      &block_, nullptr, reinterpret_cast<const std::uint8_t*>((*header)->data()));
  if (status != LZMA_OK) return failed(status, 0);
  memory_bytes_ = lzma_raw_decoder_memusage(filters_.data());
  if (memory_bytes_ > memory_limit_bytes_) return failed(LZMA_MEMLIMIT_ERROR, memory_bytes_);
  status = lzma_block_decoder(&lzma_, &block_);
  if (status != LZMA_OK) return failed(status, 0);
  return {};
}

Result<void> LzmaDecoder::decode_more(std::span<std::byte> out, std::size_t& done) {
  lzma_.next_out = reinterpret_cast<std::uint8_t*>(out.data());
  lzma_.avail_out = out.size();
  while (lzma_.avail_out > 0 && !end_) {
    const auto there = input_.peek();
    if (!there) return propagate(there);
    lzma_.next_in = reinterpret_cast<const std::uint8_t*>(there->data());
    lzma_.avail_in = there->size();
    const lzma_ret status = lzma_code(&lzma_, there->empty() ? LZMA_FINISH : LZMA_RUN);
    input_.consume(there->size() - lzma_.avail_in);
    done = out.size() - lzma_.avail_out;
    if (status == LZMA_STREAM_END) {
      if (Result<void> good = end_stream(); !good) return good;
    } else if (status != LZMA_OK && (status != LZMA_BUF_ERROR || there->empty())) {
      return failed(status, lzma_memusage(&lzma_));
    }
  }
  return {};
}

Result<void> LzmaDecoder::end_stream() {
  const std::uint64_t end = input_.position();
  if (next_ != Compression::none) {
    // Padding between streams of an .xz is whole words; .lz has none.
    constexpr std::uint64_t kWordBytes = 4;
    const Result<std::uint64_t> zeroes =
        next_ == Compression::xz ? skip_padding() : Result<std::uint64_t>(0);
    if (!zeroes) return propagate(zeroes);
    const Result<bool> more = is_at_stream();
    if (!more) return propagate(more);
    if (*more && *zeroes % kWordBytes == 0) return begin_stream(next_, order_);
  }
  end_ = end;
  return {};
}

Result<bool> LzmaDecoder::is_at_stream() {
  using namespace std::string_view_literals;
  const std::string_view magic = next_ == Compression::xz ? "\xfd"
                                                            "7zXZ\0"sv
                                                          : "LZIP"sv;
  std::array<char, 6> bytes{};
  const Result<std::size_t> count =
      input_.look(std::as_writable_bytes(std::span(bytes)).first(magic.size()));
  if (!count) return propagate(count);
  return *count != 0 && magic.starts_with(std::string_view(bytes.data(), *count));
}

Result<std::uint64_t> LzmaDecoder::skip_padding() {
  std::uint64_t zeroes = 0;
  while (true) {
    const auto there = input_.peek();
    if (!there) return propagate(there);
    const auto other =
        std::ranges::find_if(*there, [](std::byte byte) { return byte != std::byte{}; });
    const auto count = static_cast<std::size_t>(other - there->begin());
    input_.consume(count);
    zeroes += count;
    if (there->empty() || count < there->size()) return zeroes;
  }
}

}  // namespace

Result<std::unique_ptr<Decoder>> make_lzma_decoder(const DecoderInput& input, const Point& point,
                                                   DecodeOrder order) {
  auto decoder = std::make_unique<LzmaDecoder>(
      input, point.packed, order == DecodeOrder::whole_stream ? kForwardPieceBytes : kPieceBytes);
  const bool is_block = input.compression == Compression::xz && point.packed != 0;
  const Result<void> begun =
      is_block ? decoder->begin_block(point.kind) : decoder->begin_stream(input.compression, order);
  if (!begun) return propagate(begun);
  return decoder;
}

Result<XzBlocks> find_xz_blocks(const DecoderInput& input, std::uint64_t most_memory_bytes) {
  lzma_stream lzma = LZMA_STREAM_INIT;
  lzma_index* index = nullptr;
  const auto clean_up = [&] {
    lzma_index_end(index, nullptr);
    lzma_end(&lzma);
  };
  const std::uint64_t size_bytes = input.packed->size_bytes();
  XzBlocks blocks;
  lzma_ret status = lzma_file_info_decoder(&lzma, &index, most_memory_bytes, size_bytes);
  std::vector<std::byte> piece(8192);
  std::uint64_t at = 0;
  while (status == LZMA_OK || status == LZMA_SEEK_NEEDED) {
    if (status == LZMA_SEEK_NEEDED) {
      at = lzma.seek_pos;
      lzma.avail_in = 0;
    }
    if (lzma.avail_in == 0 && at < size_bytes) {
      const auto count =
          static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), size_bytes - at));
      if (const Result<void> read = input.packed->read(at, std::span(piece).first(count)); !read) {
        clean_up();
        return propagate(read);
      }
      at += count;
      lzma.next_in = reinterpret_cast<const std::uint8_t*>(piece.data());
      lzma.avail_in = count;
    }
    status = lzma_code(&lzma, LZMA_RUN);
  }
  if (status == LZMA_STREAM_END) {
    blocks.unpacked_bytes = lzma_index_uncompressed_size(index);
    lzma_index_iter iterator;
    lzma_index_iter_init(&iterator, index);
    while (lzma_index_iter_next(&iterator, LZMA_INDEX_ITER_NONEMPTY_BLOCK) == 0) {
      blocks.points.push_back({.unpacked = iterator.block.uncompressed_file_offset,
                               .packed = iterator.block.compressed_file_offset,
                               .bits = 0,
                               .kind = static_cast<std::uint8_t>(iterator.stream.flags->check)});
    }
  }
  clean_up();
  return blocks;
}

}  // namespace mkvirtfs
