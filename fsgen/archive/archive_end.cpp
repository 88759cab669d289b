// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/archive_end.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "fsgen/archive/zip_directory.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::archive {
namespace {

/// Padding is a few KiB; more of it is read in larger steps.
constexpr std::size_t kFirstStepBytes = std::size_t{16} << 10;
constexpr std::size_t kMostStepBytes = std::size_t{1} << 20;

/// How many zeroes the bytes begin with.
std::size_t zeroes_of(std::span<const std::byte> bytes) {
  const auto other =
      std::ranges::find_if(bytes, [](std::byte byte) { return byte != std::byte{}; });
  return static_cast<std::size_t>(other - bytes.begin());
}

}  // namespace

Result<std::optional<std::uint64_t>> find_rest(ByteSource& source, std::uint64_t from) {
  std::vector<std::byte> buffer;
  std::size_t step = kFirstStepBytes;
  while (from < source.size_bytes()) {
    buffer.resize(
        static_cast<std::size_t>(std::min<std::uint64_t>(step, source.size_bytes() - from)));
    if (Result<void> good = source.read(from, buffer); !good) return propagate(good);
    const std::size_t zeroes = zeroes_of(buffer);
    from += zeroes;
    if (zeroes < buffer.size()) return from;
    step = std::min(step * 2, kMostStepBytes);
  }
  return std::nullopt;
}

Result<std::optional<std::uint64_t>> find_rest(ForwardReader& stream, std::uint64_t from,
                                               std::span<const std::byte> unread) {
  const std::size_t zeroes_unread = zeroes_of(unread);
  if (zeroes_unread < unread.size()) return from + zeroes_unread;
  from += unread.size();
  while (true) {
    const Result<std::span<const std::byte>> piece = stream.next();
    if (!piece) return propagate(piece);
    if (piece->empty()) return std::nullopt;
    const std::size_t zeroes = zeroes_of(*piece);
    from += zeroes;
    if (zeroes == piece->size()) continue;
    stream.give_back(piece->size() - zeroes);
    return from;
  }
}

Result<std::optional<std::uint64_t>> end_of_archive(ByteSource& source, ArchiveKind kind) {
  if (kind == ArchiveKind::zip) return ZipDirectory::end_of_archive(source);
  // 7zFormat.txt, "SignatureHeader"; [MS-CAB] 2.3, CFHEADER.
  using namespace std::string_view_literals;
  constexpr std::string_view kSevenZip = "7z\xbc\xaf\x27\x1c"sv;
  constexpr std::string_view kCab = "MSCF"sv;
  constexpr std::size_t kHeaderBytes = 32;
  if (source.size_bytes() < kHeaderBytes) return std::nullopt;
  std::array<std::byte, kHeaderBytes> header{};
  if (Result<void> good = source.read(0, header); !good) return propagate(good);
  const std::string_view text(reinterpret_cast<const char*>(header.data()), header.size());
  std::optional<std::uint64_t> end;
  if (text.starts_with(kSevenZip)) {
    end = checked_add(load_le<std::uint64_t>(header, 12), load_le<std::uint64_t>(header, 20));
    if (end) end = checked_add(*end, std::uint64_t{kHeaderBytes});
  } else if (text.starts_with(kCab)) {
    end = load_le<std::uint32_t>(header, 8);
  }
  return end;
}

}  // namespace mkvirtfs::archive
