// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/compressed.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "fsgen/stream/file_source.h"
#include "fsgen/stream/testing/pack.h"
#include "fsgen/stream/testing/stream_data.h"
#include "support/mutex.h"
#include "support/sha256.h"
#include "tests/support/collected_log.h"
#include "tests/support/hinted_text.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

using mkvirtfs::testing::CollectedLog;

using namespace testing;

constexpr std::size_t kChunk = ChunkCache::kChunkBytes;

struct Format {
  const char* name;
  Compression compression;
  std::function<std::string(std::string_view)> pack;
  enum Kind : std::uint8_t { kept, made_again, spooled } kind;  // what becomes of its points
  std::size_t least_points;                                     // for the bytes of sample()
};

const std::string& sample() {
  static const std::string bytes = some_bytes(1'100'000, 1);
  return bytes;
}

std::string in_parts(std::string_view bytes, std::size_t part_bytes,
                     const std::function<std::string(std::string_view)>& pack) {
  std::string all;
  for (std::size_t at = 0; at < bytes.size(); at += part_bytes) {
    all += pack(bytes.substr(at, part_bytes));
  }
  return all;
}

const std::vector<Format>& formats() {
  static const std::vector<Format> all = {
      {"gzip", Compression::gzip, pack_gzip, Format::kept, 6},
      {"gzip of several members", Compression::gzip,
       [](auto bytes) { return in_parts(bytes, 40'000, pack_gzip); }, Format::kept, 6},
      {"xz of several blocks", Compression::xz, [](auto bytes) { return pack_xz(bytes, 150'000); },
       Format::kept, 6},
      {"xz of several streams, with padding between them", Compression::xz,
       [](auto bytes) {
         return in_parts(bytes, 500'000,
                         [](auto part) { return pack_xz(part, 150'000) + std::string(8, '\0'); });
       },
       Format::kept, 6},
      {"xz of one block", Compression::xz, [](auto bytes) { return pack_xz(bytes, 0); },
       Format::spooled, 5},
      {"zstd of several frames", Compression::zstd,
       [](auto bytes) { return pack_zstd(bytes, 150'000); }, Format::kept, 6},
      {"zstd with frames to be skipped", Compression::zstd,
       [](auto bytes) {
         return "\x52\x2a\x4d\x18\x05" + std::string(3, '\0') + "stuff" + pack_zstd(bytes, 150'000);
       },
       Format::kept, 6},
      {"zstd of one frame", Compression::zstd, [](auto bytes) { return pack_zstd(bytes, 0); },
       Format::made_again, 2},
      {"zstd with a large window", Compression::zstd,
       [](auto bytes) { return pack_zstd_stream(bytes, 3, 24); }, Format::spooled, 5},
      {"bzip2", Compression::bzip2, [](auto bytes) { return pack_bzip2(bytes, 1); }, Format::kept,
       6},
      {"bzip2 of several streams", Compression::bzip2,
       [](auto bytes) {
         return in_parts(bytes, 500'000, [](auto part) { return pack_bzip2(part, 1); });
       },
       Format::kept, 6},
      {"lz4", Compression::lz4, pack_lz4, Format::spooled, 5},
      {"lz4 of several frames, legacy ones, too", Compression::lz4,
       [](auto bytes) {
         return pack_lz4(bytes.substr(0, 300'000 * (bytes.size() > 300'000))) +
                pack_lz4_legacy(bytes.substr(300'000 * (bytes.size() > 300'000)), 200'000);
       },
       Format::spooled, 5},
      {"lz4 legacy", Compression::lz4, [](auto bytes) { return pack_lz4_legacy(bytes, 8U << 20); },
       Format::spooled, 5},
      {"lzma", Compression::lzma, [](auto bytes) { return pack_lzma(bytes); }, Format::spooled, 5},
      {"lzma with other properties", Compression::lzma,
       [](auto bytes) {
         return pack_lzma(bytes, {.lc = 0, .lp = 2, .pb = 1, .dictionary_bytes = 3U << 15});
       },
       Format::spooled, 5},
      {"lzip", Compression::lzip, pack_lzip, Format::spooled, 5},
      {"compress", Compression::compress, [](auto bytes) { return pack_compress(bytes, 16, true); },
       Format::spooled, 5},
      {"compress with short codes", Compression::compress,
       [](auto bytes) { return pack_compress(bytes, 12, true); }, Format::spooled, 5},
      {"compress with codes of one width", Compression::compress,
       [](auto bytes) { return pack_compress(bytes, 9, true); }, Format::spooled, 5},
      {"compress without a code to clear", Compression::compress,
       [](auto bytes) { return pack_compress(bytes, 13, false); }, Format::spooled, 5},
  };
  return all;
}

/// sample(), packed; made once, for that is what takes the time.
const std::string& packed_sample(const Format& format) {
  static std::map<std::string, std::string> all;
  std::string& packed = all[format.name];
  if (packed.empty()) packed = format.pack(sample());
  return packed;
}

StreamOptions small_options() {
  StreamOptions options;
  options.span_bytes = 50'000;
  options.cache = std::make_shared<ChunkCache>(2U << 20);
  options.spool = std::make_shared<SpoolSpace>(std::filesystem::temp_directory_path().string(),
                                               std::uint64_t{64} << 20);
  return options;
}

std::shared_ptr<MemorySource> memory(std::string bytes) {
  return std::make_shared<MemorySource>(std::move(bytes), "test.packed");
}

struct Unpacked {
  std::string bytes;
  std::string error;
  std::uint64_t packed_end = 0;  ///< without an error
};

/// All that a pass over `packed` gives, and how it ended.
Unpacked unpack(std::string packed, Compression compression,
                const StreamOptions& options = small_options()) {
  auto pass = open_compressed(memory(std::move(packed)), compression, options);
  if (!pass) return {"", hinted_text(pass.error())};
  Unpacked all;
  while (true) {
    const auto more = (*pass)->next();
    if (!more) {
      all.error = hinted_text(more.error());
      // An error is final.
      const auto again = (*pass)->next();
      if (again || hinted_text(again.error()) != all.error) all.error = "another error";
      return all;
    }
    if (more->empty()) {
      if ((*pass)->finish()) all.packed_end = (*pass)->packed_end();
      return all;
    }
    all.bytes.append(reinterpret_cast<const char*>(more->data()), more->size());
  }
}

std::shared_ptr<ByteSource> indexed(std::shared_ptr<ByteSource> packed, Compression compression,
                                    const StreamOptions& options) {
  auto pass = open_compressed(std::move(packed), compression, options);
  if (!pass) throw std::runtime_error(pass.error().what);
  auto source = (*pass)->finish();
  if (!source) throw std::runtime_error(source.error().what);
  return *source;
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

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("every format reads the same at any offset, by its index and without the pass",
          "[one-thread]") {
  for (const Format& format : formats()) {
    INFO(format.name);
    const std::string packed = packed_sample(format);
    REQUIRE(*detect_compression(*memory(packed)) == format.compression);
    const Unpacked all = unpack(packed, format.compression);
    REQUIRE(all.error == "");
    REQUIRE((all.bytes == sample()));

    const auto source = indexed(memory(packed), format.compression, small_options());
    REQUIRE(source->size_bytes() == sample().size());
    const auto facts = stream_facts(*source);
    REQUIRE(facts);
    CHECK(facts->compression == format.compression);
    CHECK((facts->spool_bytes != 0) == (format.kind == Format::spooled));
    CHECK(facts->points >= format.least_points);
    CHECK(facts->span_bytes <= 1'100'000);
    CHECK(reads_right(*source, sample(), 2, 12));

    const auto index = save_index(*source);
    REQUIRE(index);
    // Where points are made again this reads while they are.
    const auto again = open_indexed(memory(packed), *index, small_options());
    REQUIRE(again);
    CHECK(stream_facts(**again)->spool_bytes == facts->spool_bytes);
    CHECK((stream_facts(**again)->span_bytes == 0) == (format.kind != Format::kept));
    CHECK(reads_right(**again, sample(), 3, 6));
    CHECK(*save_index(**again) == *index);
    CHECK(stream_facts(**again)->points <= stream_facts(*source)->points);
  }
}

TEST_CASE("gzip: whatever blocks and members it has, one library reads what the other has indexed",
          "[one-thread]") {
  std::map<std::string, std::string> all;
  for (const int level : {0, 1, 9}) {
    all[fmt::format("level {}", level)] = pack_gzip_as(sample(), {.level = level});
  }
  for (const int strategy : {Z_FILTERED, Z_HUFFMAN_ONLY, Z_RLE, Z_FIXED}) {
    all[fmt::format("strategy {}", strategy)] = pack_gzip_as(sample(), {.strategy = strategy});
  }
  all["small blocks"] = pack_gzip_as(sample(), {.memory_level = 1});
  for (const int flush : {Z_PARTIAL_FLUSH, Z_SYNC_FLUSH, Z_FULL_FLUSH, Z_BLOCK}) {
    all[fmt::format("flush {}", flush)] =
        pack_gzip_as(sample(), {.flush_every_bytes = 777, .flush = flush});
  }
  // Ends of members at each place of the pieces that are read.
  std::mt19937 random(1);
  std::string& members = all["members"];
  for (std::size_t at = 0; at < sample().size();) {
    const std::size_t count = std::min<std::size_t>(random() % 600, sample().size() - at);
    members += pack_gzip(std::string_view(sample()).substr(at, count));
    at += count;
  }
  for (const auto& [name, packed] : all) {
    INFO(name);
    const auto source = indexed(memory(packed), Compression::gzip, small_options());
    REQUIRE(source->size_bytes() == sample().size());
    CHECK(reads_right(*source, sample(), 1, 100));
    CHECK(read_text(*source, 0, sample().size()) == sample());
  }
}

TEST_CASE("what is empty or short needs no spool") {
  for (const Format& format : formats()) {
    INFO(format.name);
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{500}, kChunk}) {
      if (size == 0 && contains(format.name, "several")) continue;  // of no part there is none
      const std::string bytes = some_bytes(size, 7);
      StreamOptions options = small_options();
      options.spool = nullptr;
      const auto source = indexed(memory(format.pack(bytes)), format.compression, options);
      CHECK((read_text(*source, 0, source->size_bytes()) == bytes));
      const auto index = save_index(*source);
      REQUIRE(index);
      const auto again = open_indexed(memory(format.pack(bytes)), *index, options);
      REQUIRE(again);
      CHECK((read_text(**again, 0, size) == bytes));
    }
  }
}

TEST_CASE("several threads read one stream") {
  for (const Format& format : formats()) {
    INFO(format.name);
    const auto source = indexed(memory(packed_sample(format)), format.compression, small_options());
    std::atomic<int> right = 0;
    std::vector<std::thread> threads;
    for (std::uint32_t i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] { right += reads_right(*source, sample(), i, 5) ? 1 : 0; });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(right == 4);
  }
}

TEST_CASE("a truncated stream is an error that says where, behind bytes that are right",
          "[one-thread]") {
  const std::string bytes = some_bytes(250'000, 4);
  for (const Format& format : formats()) {
    INFO(format.name);
    const std::string packed = format.pack(bytes);
    std::mt19937 random(5);
    for (int i = 0; i < 24; ++i) {
      // The last bytes are those of trailers, which are many and short.
      const std::size_t cut = i < 8 ? packed.size() - 1 - static_cast<std::size_t>(i)
                                    : 1 + random() % (packed.size() - 1);
      INFO("cut to " << cut << " of " << packed.size());
      const Unpacked all = unpack(packed.substr(0, cut), format.compression);
      CHECK((bytes.starts_with(all.bytes)));
      if (all.error.empty()) {
        // It may end between two members, or in padding; and nobody knows where .Z should.
        CHECK((contains(format.name, "several") || format.compression == Compression::compress));
      } else {
        CHECK(contains(all.error, "test.packed is damaged at byte "));
      }
    }
  }
}

TEST_CASE("a flipped bit never goes unseen where the format has checksums", "[one-thread]") {
  const std::string bytes = some_bytes(250'000, 4);
  for (const Format& format : formats()) {
    INFO(format.name);
    if (format.compression == Compression::lzma || format.compression == Compression::compress ||
        contains(format.name, "legacy")) {
      continue;
    }
    const std::string packed = format.pack(bytes);
    std::mt19937 random(6);
    int seen = 0;
    for (int i = 0; i < 20; ++i) {
      std::string flipped = packed;
      const std::size_t at = random() % flipped.size();
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << (random() % 8)));
      INFO("at " << at);
      const Unpacked all = unpack(flipped, format.compression);
      seen += all.error.empty() ? 0 : 1;
      // Of a header some bits mean nothing; what looks like the end of the last member is known.
      if (all.error.empty() && all.packed_end == packed.size()) CHECK((all.bytes == bytes));
    }
    CHECK(seen >= 15);
  }
}

TEST_CASE("what follows the end of any stream is left alone, and where it ends is known",
          "[one-thread]") {
  const std::string bytes = some_bytes(100'000, 1);
  for (const Format& format : formats()) {
    if (format.compression == Compression::compress) continue;  // has no end
    INFO(format.name);
    const std::string packed = format.pack(bytes);
    // The padding of an .xz of several streams is its own.
    const std::size_t end =
        format.name == std::string_view("xz of several streams, with padding between them")
            ? packed.size() - 8
            : packed.size();
    for (const std::string& rest : {std::string(), std::string(5000, '\0'), std::string("garbage"),
                                    std::string(3, '\0') + "garbage", pack_deflate(bytes)}) {
      INFO(rest.size());
      const Unpacked all = unpack(packed + rest, format.compression);
      CHECK(all.error == "");
      CHECK((all.bytes == bytes));
      CHECK(all.packed_end == end);
      const auto source = indexed(memory(packed + rest), format.compression, small_options());
      CHECK((read_text(*source, 0, bytes.size()) == bytes));
      const auto again = open_indexed(memory(packed + rest), *save_index(*source), small_options());
      REQUIRE(again);
      CHECK((read_text(**again, 0, bytes.size()) == bytes));
    }
  }
}

TEST_CASE(".lzma is known by what its header may be, and nothing else is taken for it") {
  const std::string bytes = some_bytes(1000, 1);
  for (const unsigned lc : {0U, 3U, 4U}) {
    for (const unsigned pb : {0U, 2U, 4U}) {
      for (const unsigned dictionary : {4096U, 3U << 12, 1U << 23, 3U << 24}) {
        const std::string packed =
            pack_lzma(bytes, {.lc = lc, .lp = 4 - lc, .pb = pb, .dictionary_bytes = dictionary});
        CHECK(*detect_compression(*memory(packed)) == Compression::lzma);
        CHECK((unpack(packed, Compression::lzma).bytes == bytes));
      }
    }
  }
  const std::string good = pack_lzma(bytes, {.lc = 0, .lp = 2, .pb = 1});
  const auto changed = [&](std::size_t at, char value) {
    std::string packed = good;
    packed[at] = value;
    return *detect_compression(*memory(packed));
  };
  REQUIRE(changed(0, good[0]) == Compression::lzma);
  CHECK(changed(0, '\xe1') == Compression::none);   // no properties
  CHECK(changed(0, '\x08') == Compression::none);   // lc = 8
  CHECK(changed(1, '\x01') == Compression::none);   // no round dictionary
  CHECK(changed(3, '\0') == Compression::none);     // none at all
  CHECK(changed(12, '\x7f') == Compression::none);  // no size
  CHECK(changed(13, '\x01') == Compression::none);  // no range coder
  CHECK(*detect_compression(*memory(std::string(100, '\0'))) == Compression::none);
}

TEST_CASE("gzip: headers may have every field") {
  const std::string bytes = some_bytes(1000, 1);
  const std::string packed = pack_gzip(bytes);
  std::string full("\x1f\x8b\x08\x1f\0\0\0\0\0\x03", 10);  // all flags
  full += std::string("\x04\0abcd", 6) + std::string("name\0", 5) + std::string("comment\0", 8) +
          "zz" + packed.substr(10);
  CHECK((unpack(full, Compression::gzip).bytes == bytes));
  for (std::size_t size = 1; size < 31; ++size) {
    CHECK(contains(unpack(full.substr(0, size), Compression::gzip).error, "is damaged at byte"));
  }
  std::string reserved = packed;
  reserved[3] = '\x40';
  CHECK(contains(unpack(reserved, Compression::gzip).error, "a gzip header of an unknown kind"));
}

TEST_CASE("gzip: a wrong trailer is named with the offsets of its member") {
  const std::string bytes = some_bytes(600'000, 1);
  const std::string first = pack_gzip(bytes);
  std::string packed = first + first;
  packed[packed.size() - 8] = static_cast<char>(packed[packed.size() - 8] ^ 1);
  CHECK(unpack(packed, Compression::gzip).error ==
        "test.packed is damaged before byte " + std::to_string(packed.size()) +
            ": the 600000 bytes that it unpacks to from byte 600000 on have a wrong checksum");
  packed = first;
  packed[packed.size() - 1] = '\x7f';
  CHECK(contains(unpack(packed, Compression::gzip).error, "have a wrong length"));
}

TEST_CASE("compress: headers and codes that mean nothing are named") {
  const auto error_of = [](std::string_view packed) {
    return unpack(std::string(packed), Compression::compress).error;
  };
  CHECK(error_of("\x1f\x9d") == "test.packed is damaged at byte 2: it ends in its header");
  CHECK(error_of("\x1f\x9c\x90zz") == "test.packed is damaged at byte 3: no header of compress");
  for (const std::string_view flags : {"\x88", "\x91", "\xb0", "\xd0"}) {
    CHECK(error_of("\x1f\x9d" + std::string(flags) + "zzzz") ==
          "test.packed is damaged at byte 3: a header of compress of an unknown kind");
  }
  // 0x101 to begin with; then 'a' and 0x1ff.
  CHECK(contains(error_of("\x1f\x9d\x90\x01\x01"), "its first code is none"));
  CHECK(contains(error_of("\x1f\x9d\x90\x61\xfe\x03"), "a code that is not known yet"));
  // 'a', and the entry that this code itself makes; then the codes to clear, and 'b'.
  const Unpacked clears = unpack(std::string("\x1f\x9d\x90"
                                             "\x61\x02\x02\x04\0\0\0\0\0"
                                             "\x62\0",
                                             14),
                                 Compression::compress);
  CHECK(clears.error == "");
  CHECK(clears.bytes ==
        "aaa"
        "b");
}

TEST_CASE(
    "points that are made again: who reads ahead of them waits, and what differs is an error") {
  for (const Format& format : formats()) {
    if (format.kind == Format::kept) continue;
    INFO(format.name);
    const std::string packed = packed_sample(format);
    const auto index = *save_index(*indexed(memory(packed), format.compression, small_options()));
    CHECK(index.size() < 1000);
    // Four threads from the first moment on, one of which wants the last bytes.
    {
      const auto source = *open_indexed(memory(packed), index, small_options());
      std::atomic<int> right = 0;
      std::vector<std::thread> threads;
      for (std::uint32_t i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] {
          const std::size_t at = i == 0 ? sample().size() - 100 : i * 100'000;
          right += read_text(*source, at, 100) == sample().substr(at, 100) ? 1 : 0;
          right += reads_right(*source, sample(), i, 3) ? 1 : 0;
        });
      }
      for (std::thread& thread : threads) thread.join();
      CHECK(right == 8);
    }
    // Dropped before it is done, read or not.
    REQUIRE(open_indexed(memory(packed), index, small_options()));
    {
      const StreamOptions options = small_options();
      const auto source = *open_indexed(memory(packed), index, options);
      CHECK((read_text(*source, 0, 100) == sample().substr(0, 100)));
    }
    // Other bytes in the middle: what was before them is right, what is behind them fails, and the
    // log says so.
    const auto damaged = memory(packed);
    for (std::size_t b = 0; b < 10; ++b) damaged->bytes()[packed.size() / 2 + b] ^= 0x55;
    CollectedLog log;
    StreamOptions options = small_options();
    options.log = &log;
    const auto source = *open_indexed(damaged, index, options);
    const std::string last = read_text(*source, sample().size() - 10, 10);
    CHECK(contains(last, "error: test.packed is damaged "));
    CHECK(contains(log.text(), "test.packed is damaged "));
    CHECK(contains(log.text(), " of what it unpacks to on fail"));
    int right = 0;
    for (std::size_t at = 0; at + 100 < sample().size(); at += 20'000) {
      const std::string text = read_text(*source, at, 100);
      if (text == sample().substr(at, 100)) {
        ++right;
      } else {
        CHECK(text == last);
      }
    }
    CHECK(right >= 10);
  }
}

TEST_CASE("points are made again in a stream that is another one: errors, whatever comes out") {
  const std::string other = some_bytes(1'100'000, 77);
  for (const Format& format : formats()) {
    if (format.kind == Format::kept) continue;
    INFO(format.name);
    const auto index =
        *save_index(*indexed(memory(packed_sample(format)), format.compression, small_options()));
    for (const std::size_t size : {std::size_t{500'000}, std::size_t{1'100'000}}) {
      std::string packed = format.pack(std::string_view(other).substr(0, size));
      packed.resize(packed_sample(format).size(), '\0');
      const auto source = open_indexed(memory(packed), index, small_options());
      REQUIRE(source);
      for (const std::size_t at : {std::size_t{0}, std::size_t{490'000}, std::size_t{1'000'000}}) {
        CHECK(contains(read_text(**source, at, 100), "error: test.packed "));
      }
    }
    // The same bytes, but not all of them.
    std::string shorter = format.pack(std::string_view(sample()).substr(0, 6 * kChunk));
    shorter.resize(packed_sample(format).size(), '\0');
    const auto source = open_indexed(memory(shorter), index, small_options());
    REQUIRE(source);
    CHECK((read_text(**source, 0, 100) == sample().substr(0, 100)));
    CHECK(contains(read_text(**source, 8 * kChunk, 100), "error: test.packed "));
  }
}

TEST_CASE("a spool that is being written is read on, also where its points were given up") {
  const std::string bytes = some_bytes(6'000'000, 5);
  const std::string packed = pack_lz4(bytes);
  StreamOptions options = small_options();
  options.index_memory_bytes = 300;
  const auto index = *save_index(*indexed(memory(packed), Compression::lz4, options));
  for (int i = 0; i < 5; ++i) {
    options.cache = std::make_shared<ChunkCache>(1);
    const auto source = *open_indexed(memory(packed), index, options);
    for (std::size_t at = 0; at < bytes.size(); at += 200'000) {
      CHECK((read_text(*source, at, 200'000) == bytes.substr(at, 200'000)));
    }
    CHECK(stream_facts(*source)->points <= 8);
  }
}

TEST_CASE("a spool that cannot be made again is refused when the index is opened") {
  StreamOptions options = small_options();
  const auto source = indexed(memory(pack_lz4(sample())), Compression::lz4, options);
  const auto index = *save_index(*source);
  const auto error_of = [&] {
    const auto opened = open_indexed(memory(pack_lz4(sample())), index, options);
    return opened ? "" : opened.error().what;
  };
  options.spool = std::make_shared<SpoolSpace>("/tmp", stream_facts(*source)->spool_bytes - 1);
  CHECK(error_of() == "test.packed needs a larger spool than the limit allows");
  CHECK(options.spool->used_bytes() == 0);
  options.spool = nullptr;
  CHECK(error_of() == "test.packed needs a spool, and there is none");
  options.spool = std::make_shared<SpoolSpace>("/tmp", stream_facts(*source)->spool_bytes);
  CHECK(error_of() == "");
  CHECK(options.spool->used_bytes() == 0);
}

TEST_CASE("bombs are refused, by ratio and by size") {
  StreamOptions options = small_options();
  options.most_ratio = 500;
  options.ratio_free_bytes = 4U << 20;
  const std::string zeroes(6U << 20, '\0');
  const std::string packed = pack_gzip(zeroes);
  CHECK(contains(unpack(packed, Compression::gzip, options).error,
                 "more than 500 times as much [max-ratio]"));
  options.ratio_free_bytes = 8U << 20;
  CHECK(unpack(packed, Compression::gzip, options).error == "");
  options.most_unpacked_bytes = 1'000'000;
  CHECK(unpack(packed, Compression::gzip, options).error ==
        "test.packed unpacks to more than 976.6 KiB [max-size]");
  options.most_unpacked_bytes = 0;
  CHECK(unpack(packed, Compression::gzip, options).bytes.size() == zeroes.size());
}

TEST_CASE("an index keeps within its memory") {
  StreamOptions options = small_options();
  options.span_bytes = 20'000;
  const auto large = indexed(memory(pack_gzip(sample())), Compression::gzip, options);
  options.index_memory_bytes = 100'000;
  const auto small = indexed(memory(pack_gzip(sample())), Compression::gzip, options);
  CHECK(stream_facts(*large)->index_bytes > 180'000);
  CHECK(stream_facts(*small)->index_bytes < 110'000);
  CHECK(stream_facts(*small)->points >= 3);
  CHECK(reads_right(*small, sample(), 3, 50));
}

TEST_CASE("a memory limit of decoders is named") {
  StreamOptions options = small_options();
  options.decoder_memory_bytes = 100'000;
  const std::string bytes = some_bytes(500'000, 3);
  CHECK(contains(unpack(pack_xz(bytes, 0), Compression::xz, options).error,
                 "of memory to be decoded, and 97.7 KiB are allowed"));
  CHECK(contains(unpack(pack_lzma(bytes), Compression::lzma, options).error, "are allowed"));
}

TEST_CASE("without a spool what can only be read forwards is refused when it is long") {
  StreamOptions options = small_options();
  options.spool = nullptr;
  CHECK(unpack(pack_lz4(sample()), Compression::lz4, options).error ==
        "test.packed is lz4 that can only be read from its beginning on: it must be spooled, and "
        "there "
        "is no spool");
  options.spool = std::make_shared<SpoolSpace>("/tmp", 100'000);
  CHECK(unpack(pack_lz4(sample()), Compression::lz4, options).error ==
        "test.packed must be spooled, and all spools together may take 97.7 KiB [spool-limit]");
  CHECK(options.spool->used_bytes() == 0);
  CHECK(contains(unpack("anything", Compression::none).error, "is not decoded here"));
}

TEST_CASE("a spool gives its room back with the last source") {
  StreamOptions options = small_options();
  auto source = indexed(memory(pack_lz4(sample())), Compression::lz4, options);
  CHECK(options.spool->used_bytes() == stream_facts(*source)->spool_bytes);
  CHECK(stream_facts(*source)->spool_bytes < sample().size() / 2 * 3);
  source.reset();
  CHECK(options.spool->used_bytes() == 0);
}

TEST_CASE("a corrupt index is refused, and one with a right checksum never does harm") {
  const std::string packed = pack_gzip(sample());
  const auto index = *save_index(*indexed(memory(packed), Compression::gzip, small_options()));
  const auto open = [&](std::span<const std::byte> bytes) {
    return open_indexed(memory(packed), bytes, small_options());
  };
  REQUIRE(open(index));
  std::mt19937 random(8);
  for (int i = 0; i < 200; ++i) {
    std::vector<std::byte> damaged = index;
    damaged[random() % damaged.size()] ^= static_cast<std::byte>(1 << (random() % 8));
    const auto opened = open(damaged);
    REQUIRE(!opened);
    CHECK(opened.error().code == Errc::unreadable);
    CHECK(contains(opened.error().what, "the index of test.packed cannot be used: "));
    CHECK(!open(std::span(index).first(random() % index.size())));
  }
  CHECK(contains(open_indexed(memory(packed + "x"), index, small_options()).error().what,
                 "another size"));
  for (int i = 0; i < 200; ++i) {
    std::vector<std::byte> sealed = index;
    const std::size_t body = sealed.size() - 32;
    // Half of them in the header and the points.
    sealed[random() % (i % 2 == 0 ? body : 1000)] ^= static_cast<std::byte>(1 << (random() % 8));
    Sha256 sha;
    sha.update(std::span(sealed).first(body));
    std::ranges::copy(sha.finish(), sealed.begin() + static_cast<std::ptrdiff_t>(body));
    const auto opened = open(sealed);
    if (!opened) continue;
    const std::uint64_t size = std::min<std::uint64_t>((*opened)->size_bytes(), sample().size());
    const std::size_t at = random() % size;
    const std::size_t length = std::min<std::size_t>(1000, size - at);
    const std::string text = read_text(**opened, at, length);
    CHECK((text.starts_with("error: ") || text == sample().substr(at, length)));
  }
}

TEST_CASE("damage behind a kept index is an error there, and the rest stays readable") {
  for (const Format& format : formats()) {
    if (format.kind != Format::kept) continue;
    INFO(format.name);
    const std::string packed = packed_sample(format);
    const auto index = *save_index(*indexed(memory(packed), format.compression, small_options()));
    std::mt19937 random(9);
    const auto damaged = memory(packed);
    for (std::size_t b = 0; b < 10; ++b) {
      damaged->bytes()[packed.size() / 2 + b] = static_cast<char>(random());
    }
    const auto source = open_indexed(damaged, index, small_options());
    REQUIRE(source);
    int failed = 0;
    int right = 0;
    for (std::size_t at = 0; at + 100 < sample().size(); at += 20'000) {
      std::string text(100, '?');
      const auto result = (*source)->read(at, std::as_writable_bytes(std::span(text)));
      if (!result) {
        ++failed;
        CHECK(result.error().code == Errc::io);
        CHECK(contains(result.error().what, "test.packed is damaged "));
      } else {
        ++right;
        CHECK((text == sample().substr(at, 100)));
      }
    }
    CHECK(failed >= 1);
    CHECK(right >= 4);
  }
}

/// Counts what is read of it.
class CountingSource final : public ByteSource {
 public:
  explicit CountingSource(std::string bytes) : below_(std::move(bytes)) {}
  std::uint64_t size_bytes() const noexcept override { return below_.size_bytes(); }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    count_ += out.size();
    return below_.read(offset, out);
  }
  std::string name() const override { return "counted"; }
  std::uint64_t take_count() { return count_.exchange(0); }

 private:
  MemorySource below_;
  std::atomic<std::uint64_t> count_ = 0;
};

TEST_CASE("a reader that goes on does not begin again, and threads do not decode the same twice") {
  for (const Format& format : formats()) {
    if (format.kind != Format::kept) continue;
    INFO(format.name);
    const auto packed = std::make_shared<CountingSource>(packed_sample(format));
    const auto source = indexed(packed, format.compression, small_options());
    packed->take_count();
    // Where stretches end decoders read a piece too much.
    const std::uint64_t most = packed->size_bytes() * 2;
    for (std::size_t at = 0; at < sample().size(); at += 10'000) read_text(*source, at, 10'000);
    CHECK(packed->take_count() <= most);

    const auto fresh = indexed(packed, format.compression, small_options());
    packed->take_count();
    std::vector<std::thread> threads;
    std::atomic<int> right = 0;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        bool all = true;
        for (std::size_t at = 0; at < sample().size(); at += 50'000) {
          const std::size_t length = std::min<std::size_t>(50'000, sample().size() - at);
          all = all && read_text(*fresh, at, length) == sample().substr(at, length);
        }
        right += all ? 1 : 0;
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(right == 4);
    CHECK(packed->take_count() <= most + most / 2);
  }
}

TEST_CASE("many reads at once of what lies one behind the other decode it about once") {
  const std::string bytes = some_bytes(6'000'000, 21);
  for (const bool is_xz : {false, true}) {
    INFO(is_xz);
    StreamOptions options = small_options();
    options.span_bytes = 500'000;
    options.cache = std::make_shared<ChunkCache>(8U << 20);
    const auto packed =
        std::make_shared<CountingSource>(is_xz ? pack_xz(bytes, 3'000'000) : pack_gzip(bytes));
    const auto source = indexed(packed, is_xz ? Compression::xz : Compression::gzip, options);
    packed->take_count();
    std::atomic<std::size_t> next = 0;
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 12; ++i) {
      threads.emplace_back([&] {
        constexpr std::size_t kPart = 100'000;
        while (true) {
          const std::size_t at = next.fetch_add(1) * kPart;
          if (at >= bytes.size()) return;
          if (read_text(*source, at, kPart) != bytes.substr(at, kPart)) ++wrong;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(packed->take_count() <= packed->size_bytes() * 3);
  }
}

TEST_CASE("zstd goes on inside of frames, with other readers in between") {
  const std::string bytes = some_bytes(2'500'000, 14);
  for (const int level : {1, 3, 12}) {
    INFO(level);
    StreamOptions options = small_options();
    options.spool = nullptr;
    options.span_bytes = 20'000;
    const auto packed = std::make_shared<CountingSource>(
        pack_zstd_stream(bytes, level, 18) + pack_zstd(std::string_view(bytes).substr(0, 1000), 0));
    const auto source = indexed(packed, Compression::zstd, options);
    const std::string all = bytes + bytes.substr(0, 1000);
    CHECK(stream_facts(*source)->points >= 5);
    CHECK(stream_facts(*source)->span_bytes < 700'000);
    CHECK(reads_right(*source, all, 4, 15));
    // Three readers, each of which goes on where it stopped.
    options.cache = std::make_shared<ChunkCache>(8U << 20);
    const auto fresh = indexed(packed, Compression::zstd, options);
    packed->take_count();
    bool right = true;
    for (std::size_t at = 0; at < 700'000; at += 50'000) {
      for (const std::size_t base :
           {std::size_t{0}, std::size_t{800'000}, std::size_t{1'600'000}}) {
        right = right && read_text(*fresh, base + at, 50'000) == all.substr(base + at, 50'000);
      }
    }
    CHECK(right);
    CHECK(packed->take_count() < packed->size_bytes() * 3 / 2);
    std::vector<std::thread> threads;
    std::atomic<int> right_threads = 0;
    for (std::uint32_t i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] { right_threads += reads_right(*source, all, i, 5) ? 1 : 0; });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(right_threads == 4);
  }
}

TEST_CASE("what is at hand is in the cache, and nothing else") {
  StreamOptions options = small_options();
  options.cache = std::make_shared<ChunkCache>(1U << 20);
  const std::string bytes = some_bytes(2'000'000, 13);
  const auto source = indexed(memory(pack_gzip(bytes)), Compression::gzip, options);
  std::string text(1000, '?');
  const auto out = std::as_writable_bytes(std::span(text));
  const Range range{2 * kChunk - 500, 1000};
  CHECK(!source->is_at_hand(range));
  CHECK(*source->read_at_once(range.offset, out) == false);
  source->fetch(range);
  CHECK(source->is_at_hand(range));
  REQUIRE(*source->read_at_once(range.offset, out) == true);
  CHECK((text == bytes.substr(range.offset, range.length)));
  // 1 MiB holds 16 chunks: reading more of the others drives these out.
  for (std::uint64_t no = 3; no < 20; ++no) source->fetch({no * kChunk, 10});
  CHECK(!source->is_at_hand(range));
}

TEST_CASE("streams share a cache and leave it when they are no more") {
  StreamOptions options = small_options();
  const std::string other = some_bytes(1'100'000, 9);
  auto a = indexed(memory(pack_gzip(sample())), Compression::gzip, options);
  auto b = indexed(memory(pack_xz(other, 200'000)), Compression::xz, options);
  for (std::size_t at = 0; at + 100 < other.size(); at += 70'000) {
    CHECK((read_text(*a, at, 100) == sample().substr(at, 100)));
    CHECK((read_text(*b, at, 100) == other.substr(at, 100)));
  }
  a.reset();
  CHECK(reads_right(*b, other, 3, 20));
}

TEST_CASE(
    "members of a zip: small ones are checked whenever they are decoded, large ones at first") {
  const auto crc_of = [](const std::string& bytes) {
    return static_cast<std::uint32_t>(
        crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
  };
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{100}, kChunk, kChunk + 1, std::size_t{2'000'000}}) {
    INFO(size);
    const std::string bytes = some_bytes(size, 11);
    const std::string packed = pack_deflate(bytes);
    const auto archive = memory("before" + packed + "behind");
    const auto member = [&](Range range, std::uint64_t size_bytes, std::uint32_t crc32) {
      return make_deflate_member(archive, range, size_bytes, crc32, "a/member", small_options());
    };
    const Range range{6, packed.size()};
    const auto right = member(range, size, crc_of(bytes));
    REQUIRE(right);
    CHECK(!(size > 0 && (*right)->is_at_hand({0, 1})));
    CHECK((read_text(**right, 0, size) == bytes));
    CHECK(reads_right(**right, bytes, 12, 20));
    (*right)->fetch({0, size});
    CHECK((*right)->is_at_hand({0, std::min(size, kChunk)}));
    CHECK(!member({6, packed.size() + 7}, size, crc_of(bytes)));
    if (size == 0) continue;
    const auto wrong_sum = member(range, size, crc_of(bytes) ^ 1);
    CHECK(contains(read_text(**wrong_sum, 0, 1), "error: a/member is damaged"));
    const auto longer = member(range, size + 1, crc_of(bytes));
    CHECK(contains(read_text(**longer, 0, 1), "error: a/member is damaged"));
    const auto cut = member({6, packed.size() / 2}, size, crc_of(bytes));
    CHECK(contains(read_text(**cut, 0, 1), "error: a/member is damaged"));
  }
}

TEST_CASE("a file that is replaced while it is read gives no mixture") {
  const TempDir directory;
  const std::string path = (directory / "sample.tar.gz").string();
  write_file(path, pack_gzip(sample()));
  CollectedLog log;
  const auto packed = open_file_source(path, OnChange::error, log);
  REQUIRE(packed);
  const auto source = indexed(*packed, Compression::gzip, small_options());
  CHECK((read_text(*source, 0, 1000) == sample().substr(0, 1000)));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the clock of file stamps ticks
  write_file(path, pack_gzip(some_bytes(3'000'000, 99)));
  std::string text(1000, '?');
  const auto result = source->read(1'000'000, std::as_writable_bytes(std::span(text)));
  REQUIRE(!result);
  CHECK(result.error().code == Errc::source_changed);
  CHECK(contains(log.text(), "sample.tar.gz changed after it was opened"));
  // What was decoded of the file that was opened stays right.
  CHECK((read_text(*source, 0, 1000) == sample().substr(0, 1000)));
}

}  // namespace
}  // namespace mkvirtfs
