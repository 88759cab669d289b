// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/compressed.h"

#include <zlib.h>

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "fsgen/stream/testing/stream_data.h"

namespace mkvirtfs {
namespace {

using testing::MemorySource;
using testing::some_bytes;

std::string deflated(std::string_view bytes, int window_bits, int level = 6) {
  z_stream zlib{};
  deflateInit2(&zlib, level, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&zlib, bytes.size()) + 64, '\0');
  zlib.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  zlib.avail_in = static_cast<uInt>(bytes.size());
  zlib.next_out = reinterpret_cast<Bytef*>(out.data());
  zlib.avail_out = static_cast<uInt>(out.size());
  deflate(&zlib, Z_FINISH);
  out.resize(zlib.total_out);
  deflateEnd(&zlib);
  return out;
}

std::string gzip(std::string_view bytes) { return deflated(bytes, 31); }

StreamOptions small_options() {
  StreamOptions options;
  options.span_bytes = 100'000;
  options.cache = std::make_shared<ChunkCache>(2U << 20);
  return options;
}

std::shared_ptr<MemorySource> memory(std::string bytes) {
  return std::make_shared<MemorySource>(std::move(bytes), "test.gz");
}

/// All that a pass over `packed` gives, or its error's text.
std::string unpack(std::string packed, Compression compression,
                   const StreamOptions& options = small_options()) {
  auto pass = open_compressed(memory(std::move(packed)), compression, options);
  if (!pass) return "error: " + pass.error().what;
  std::string all;
  while (true) {
    const auto more = (*pass)->next();
    if (!more) return "error: " + more.error().what;
    if (more->empty()) return all;
    all.append(reinterpret_cast<const char*>(more->data()), more->size());
  }
}

std::string read_text(ByteSource& source, std::uint64_t offset, std::size_t length) {
  std::string text(length, '?');
  const Result<void> result = source.read(offset, std::as_writable_bytes(std::span(text)));
  return result ? text : "error: " + result.error().what;
}

/// Whether random reads give what was packed.
bool reads_right(ByteSource& source, const std::string& bytes, std::uint32_t seed, int reads) {
  std::mt19937 random(seed);
  for (int i = 0; i < reads; ++i) {
    const std::size_t offset = random() % (bytes.size() + 1);
    const std::size_t length =
        random() % (std::min<std::size_t>(bytes.size() - offset, 70'000) + 1);
    if (read_text(source, offset, length) != bytes.substr(offset, length)) return false;
  }
  return true;
}

TEST_CASE("a gzip stream reads the same at any offset") {
  const std::string bytes = some_bytes(3'000'000, 1);
  const std::string packed = gzip(bytes);
  REQUIRE(unpack(packed, Compression::gzip) == bytes);
  auto pass = open_compressed(memory(packed), Compression::gzip, small_options());
  REQUIRE(pass);
  const auto source = (*pass)->finish();
  REQUIRE(source);
  REQUIRE((*source)->size_bytes() == bytes.size());
  CHECK(stream_facts(**source)->points > 10);
  CHECK(reads_right(**source, bytes, 2, 100));

  const auto index = save_index(**source);
  REQUIRE(index);
  const auto again = open_indexed(memory(packed), *index, small_options());
  REQUIRE(again);
  CHECK(reads_right(**again, bytes, 3, 100));
}

}  // namespace
}  // namespace mkvirtfs
