// SPDX-License-Identifier: BSD-3-Clause
// Compressed streams and their indexes (docs/layout-stream-index.md). Whatever the bytes are, a
// pass over them ends with all they hold or with an error; after one that succeeds every read gives
// what the pass gave, and so does the index when it is kept. An index that is not of the stream
// gives errors or bytes, and harms nothing.
//
// Input: u8 compression (modulo 10, as in a kept index), u8 flags (1: the index's checksum is put
// right; 2: its packed size, too; 4: a member of a zip instead), u16 length of the index, or a
// ninth of the member's size, the index, the packed bytes.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../support/temp_dir.h"
#include "fsgen/stream/compressed.h"
#include "fuzz_require.h"
#include "support/byte_order.h"
#include "support/sha256.h"

using namespace mkvirtfs;

namespace {

using Bytes = std::span<const std::byte>;

class Packed final : public ByteSource {
 public:
  explicit Packed(Bytes bytes) : bytes_(bytes.begin(), bytes.end()) {}
  std::uint64_t size_bytes() const noexcept override { return bytes_.size(); }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    FUZZ_REQUIRE(offset <= bytes_.size() && out.size() <= bytes_.size() - offset);
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    return {};
  }
  std::string name() const override { return "input"; }

 private:
  const std::vector<std::byte> bytes_;
};

StreamOptions options_for(std::uint64_t most_unpacked_bytes) {
  StreamOptions options;
  options.span_bytes = 40'000;
  options.index_memory_bytes = 100'000;
  options.decoder_memory_bytes = std::uint64_t{16} << 20;
  options.most_unpacked_bytes = most_unpacked_bytes;
  options.cache = std::make_shared<ChunkCache>(std::uint64_t{1} << 20);
  options.spool = std::make_shared<SpoolSpace>(fast_place().string(), std::uint64_t{8} << 20);
  return options;
}

/// A few reads all over the source; with `expected` they must give its bytes.
void read_some(ByteSource& source, const std::vector<std::byte>* expected) {
  const std::uint64_t size = source.size_bytes();
  if (size == 0) return;
  for (const std::uint64_t seed : {std::uint64_t{0}, size - 1, size / 2, size / 3, size / 5 * 4}) {
    const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(size - seed, 3000));
    std::vector<std::byte> out(length);
    const Result<void> result = source.read(seed, out);
    if (expected == nullptr) {
      FUZZ_REQUIRE(result || !result.error().what.empty());
      continue;
    }
    FUZZ_REQUIRE(result);
    FUZZ_REQUIRE(
        std::equal(out.begin(), out.end(), expected->begin() + static_cast<std::ptrdiff_t>(seed)));
  }
}

void run_pass(const std::shared_ptr<ByteSource>& packed, Compression compression,
              const StreamOptions& options) {
  auto pass = open_compressed(packed, compression, options);
  if (!pass) {
    FUZZ_REQUIRE(!pass.error().what.empty());
    return;
  }
  std::vector<std::byte> all;
  while (true) {
    const auto more = (*pass)->next();
    if (!more) {
      FUZZ_REQUIRE(!more.error().what.empty());
      FUZZ_REQUIRE(!(*pass)->finish());
      return;
    }
    if (more->empty()) break;
    all.insert(all.end(), more->begin(), more->end());
    // The limit is looked at behind each piece.
    constexpr std::size_t kPieceBytes = std::size_t{256} << 10;
    FUZZ_REQUIRE(all.size() <= options.most_unpacked_bytes + kPieceBytes);
  }
  const auto source = (*pass)->finish();
  FUZZ_REQUIRE(source && (*source)->size_bytes() == all.size());
  FUZZ_REQUIRE((*pass)->packed_end() <= packed->size_bytes());
  read_some(**source, &all);
  const auto index = save_index(**source);
  FUZZ_REQUIRE(index);
  const auto again = open_indexed(packed, *index, options);
  FUZZ_REQUIRE(again);
  read_some(**again, &all);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto input = std::as_bytes(std::span(data, size));
  if (input.size() < 4) return 0;
  const auto compression = static_cast<Compression>(std::to_integer<unsigned>(input[0]) % 10);
  const auto flags = std::to_integer<unsigned>(input[1]);
  const StreamOptions options = options_for(std::uint64_t{2} << 20);
  if ((flags & 4) != 0) {
    const auto archive = std::make_shared<Packed>(input.subspan(4));
    const auto member = make_deflate_member(archive, {0, archive->size_bytes()},
                                            load_le<std::uint16_t>(input, 2) * std::uint64_t{9}, 0,
                                            "member", options);
    FUZZ_REQUIRE(member);
    read_some(**member, nullptr);
    return 0;
  }
  const std::size_t index_bytes =
      std::min<std::size_t>(load_le<std::uint16_t>(input, 2), input.size() - 4);
  std::vector<std::byte> index(input.begin() + 4,
                               input.begin() + 4 + static_cast<std::ptrdiff_t>(index_bytes));
  const auto packed = std::make_shared<Packed>(input.subspan(4 + index_bytes));
  FUZZ_REQUIRE(detect_compression(*packed));
  if (index.empty()) {
    run_pass(packed, compression, options);
    return 0;
  }
  constexpr std::size_t kDigestBytes = 32;
  if ((flags & 2) != 0 && index.size() >= 24) {
    store_le<std::uint64_t>(index, 16, packed->size_bytes());
  }
  if ((flags & 1) != 0 && index.size() > kDigestBytes) {
    const std::size_t body = index.size() - kDigestBytes;
    Sha256 sha;
    sha.update(std::span(index).first(body));
    std::ranges::copy(sha.finish(), index.begin() + static_cast<std::ptrdiff_t>(body));
  }
  const auto source = open_indexed(packed, index, options);
  if (source) {
    read_some(**source, nullptr);
  } else {
    // The last one: a spool larger than there may be.
    FUZZ_REQUIRE(
        (source.error().code == Errc::unreadable || source.error().code == Errc::no_space) &&
        !source.error().what.empty());
  }
  return 0;
}
