// SPDX-License-Identifier: BSD-3-Clause
// The headers of rar 4 and 5 form a chain: each has a checksum, its own length and that of the
// data behind it. They are followed to the end block, and the CRC-32 of each file is collected.
#include "fsgen/archive/rar_checksums.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>
#include <utility>

#include "fsgen/stream/packing.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::archive {
namespace {

using Bytes = std::span<const std::byte>;
using Checksums = std::vector<std::optional<std::uint32_t>>;

constexpr std::string_view kSignature4("Rar!\x1a\x07\0", 7);
constexpr std::string_view kSignature5("Rar!\x1a\x07\1\0", 8);
// What stands before an archive that unpacks itself.
constexpr std::size_t kMostBefore = std::size_t{1} << 20;
// More than three bytes for the length of a header are not allowed.
constexpr std::uint64_t kMostHeader5Bytes = (std::uint64_t{1} << 21) - 1;

std::uint32_t crc32_of(Bytes bytes) {
  return static_cast<std::uint32_t>(
      ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

class BlockReader {
 public:
  BlockReader(ByteSource& archive, std::uint64_t most_entries)
      : archive_(archive), most_entries_(most_entries) {}

  Result<Checksums> run();

 private:
  /// Takes the block at at_ and goes behind it; false at the end block.
  Result<bool> take_block4();
  Result<bool> take_block5();
  void add(std::optional<std::uint32_t> checksum);
  Result<void> skip(std::uint64_t header_bytes, std::uint64_t data_bytes);
  /// `length` bytes from at_ on, into header_.
  Result<void> read(std::uint64_t length);

  std::unexpected<Error> wrong(std::string_view what, Errc code = Errc::unreadable) const {
    return fail(code, fmt::format("{}: byte {}: {}", archive_.name(), at_, what));
  }

  ByteSource& archive_;
  const std::uint64_t most_entries_;
  std::uint64_t at_ = 0;
  std::vector<std::byte> header_;
  Checksums checksums_;
};

Result<void> BlockReader::read(std::uint64_t length) {
  if (length > archive_.size_bytes() - at_) {
    return wrong("has no end block: it is cut off, or older than rar 3");
  }
  header_.resize(static_cast<std::size_t>(length));
  return archive_.read(at_, header_);
}

Result<void> BlockReader::skip(std::uint64_t header_bytes, std::uint64_t data_bytes) {
  const auto length = checked_add(header_bytes, data_bytes);
  if (!length || *length > archive_.size_bytes() - at_) {
    return wrong(fmt::format("has {} bytes of data, but the archive ends at {}", data_bytes,
                             archive_.size_bytes()));
  }
  at_ += *length;
  return {};
}

void BlockReader::add(std::optional<std::uint32_t> checksum) {
  // Too many entries are reported elsewhere.
  if (checksums_.size() < most_entries_) checksums_.push_back(checksum);
}

Result<bool> BlockReader::take_block4() {
  constexpr std::size_t kLeastBytes = 7;
  constexpr std::size_t kFileBytes = 32;
  if (Result<void> good = read(kLeastBytes); !good) return propagate(good);
  const auto crc = load_le<std::uint16_t>(header_);
  const auto type = std::to_integer<unsigned>(header_[2]);
  const auto flags = load_le<std::uint16_t>(header_, 3);
  const auto size = load_le<std::uint16_t>(header_, 5);
  const bool is_file = type == 0x74;
  const bool has_data = (flags & 0x8000) != 0;
  const bool is_known = type == 0x73 || is_file || type == 0x7a || type == 0x7b;
  const std::size_t least = is_file ? kFileBytes : kLeastBytes + (has_data ? 4 : 0);
  if (size < least) return wrong("a header is too short");
  if (Result<void> good = read(size); !good) return propagate(good);
  // Of the others, which are older, the checksum covers a part.
  if (is_known && (crc32_of(Bytes(header_).subspan(2)) & 0xffff) != crc) {
    return wrong("a header has a wrong checksum");
  }
  if (type == 0x7b) return false;
  if (type == 0x73 && (flags & 0x80) != 0) return wrong("is encrypted", Errc::unsupported);
  std::uint64_t data_bytes = has_data ? load_le<std::uint32_t>(header_, 7) : 0;
  if (is_file) {
    if ((flags & 3) != 0) return wrong("is one volume of several", Errc::unsupported);
    const bool is_large = (flags & 0x100) != 0;
    if (is_large && size < kFileBytes + 8) return wrong("a header is too short");
    if (is_large) data_bytes |= std::uint64_t{load_le<std::uint32_t>(header_, kFileBytes)} << 32;
    add(load_le<std::uint32_t>(header_, 16));
  }
  if (Result<void> good = skip(size, data_bytes); !good) return propagate(good);
  return true;
}

Result<bool> BlockReader::take_block5() {
  constexpr std::uint64_t kCrcBytes = 4;
  constexpr std::uint64_t kLeastBytes = kCrcBytes + 3;
  if (Result<void> good = read(kLeastBytes); !good) return propagate(good);
  Unpacker start(Bytes(header_).subspan(kCrcBytes));
  const std::uint64_t size = start.number_up_to(kMostHeader5Bytes);
  const std::uint64_t size_bytes = start.position();
  if (!start.good() || size < 2) return wrong("a header has no length");
  const std::uint64_t whole = kCrcBytes + size_bytes + size;
  if (Result<void> good = read(whole); !good) return propagate(good);
  if (crc32_of(Bytes(header_).subspan(kCrcBytes)) != load_le<std::uint32_t>(header_)) {
    return wrong("a header has a wrong checksum");
  }
  Unpacker in(Bytes(header_).subspan(static_cast<std::size_t>(kCrcBytes + size_bytes)));
  const std::uint64_t type = in.number();
  const std::uint64_t flags = in.number();
  if ((flags & 1) != 0) in.number();  // the length of the extra area
  const std::uint64_t data_bytes = (flags & 2) != 0 ? in.number() : 0;
  constexpr std::uint64_t kFile = 2;
  constexpr std::uint64_t kEncryption = 4;
  constexpr std::uint64_t kEnd = 5;
  if (!in.good()) return wrong("a header is too short");
  if (type == kEncryption) return wrong("is encrypted", Errc::unsupported);
  if ((flags & 0x18) != 0) return wrong("is one volume of several", Errc::unsupported);
  if (type == kEnd) return false;
  if (type == kFile) {
    const std::uint64_t file_flags = in.number();
    in.number();  // the size
    in.number();  // the attributes
    std::size_t at = static_cast<std::size_t>(kCrcBytes + size_bytes) + in.position();
    if ((file_flags & 2) != 0) at += 4;  // the time
    const bool has_checksum = (file_flags & 4) != 0;
    if (!in.good() || (has_checksum && at + 4 > header_.size())) {
      return wrong("a header is too short");
    }
    add(has_checksum ? std::optional(load_le<std::uint32_t>(header_, at)) : std::nullopt);
  }
  if (Result<void> good = skip(whole, data_bytes); !good) return propagate(good);
  return true;
}

Result<Checksums> BlockReader::run() {
  std::vector<std::byte> first(
      static_cast<std::size_t>(std::min<std::uint64_t>(archive_.size_bytes(), kMostBefore)));
  if (Result<void> good = archive_.read(0, first); !good) return propagate(good);
  const std::string_view text(reinterpret_cast<const char*>(first.data()), first.size());
  const std::size_t at4 = text.find(kSignature4);
  const std::size_t at5 = text.find(kSignature5);
  if (at4 == std::string_view::npos && at5 == std::string_view::npos) {
    return wrong("the signature of a rar archive is not where it should be");
  }
  const bool is_5 = at5 < at4;
  at_ = is_5 ? at5 + kSignature5.size() : at4 + kSignature4.size();
  while (true) {
    const Result<bool> more = is_5 ? take_block5() : take_block4();
    if (!more) return propagate(more);
    if (!*more) return std::move(checksums_);
  }
}

}  // namespace

Result<std::vector<std::optional<std::uint32_t>>> read_rar_checksums(ByteSource& archive,
                                                                     std::uint64_t most_entries) {
  return BlockReader(archive, most_entries).run();
}

}  // namespace mkvirtfs::archive
