// SPDX-License-Identifier: BSD-3-Clause
// bare_inflate FILE.gz SPAN-BYTES: what bench/ compares random reads of a .tar.gz with. One pass
// over the gzip member finds the places between two deflate blocks that are SPAN-BYTES or a little
// more of unpacked bytes apart, and keeps the 32 KiB before each. Then, for each line of standard
// input with the offset of an unpacked byte, zlib inflates all of the span that has it, from its
// beginning to its end, and nothing else is done: no check, no copy. Prints the span's length in
// bytes and the seconds that took.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

constexpr std::size_t kWindowBytes = 32U << 10;
constexpr std::size_t kOutBytes = 64U << 10;

struct Place {
  std::uint64_t unpacked = 0;
  std::size_t packed = 0;  // the first whole byte
  int bits = 0;            // of the byte before it
  std::vector<Bytef> window;
};

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "bare_inflate: %s\n", what);
  std::_Exit(1);
}

struct Packed {
  Bytef* bytes = nullptr;
  std::size_t size = 0;
};

Packed map(const char* path) {
  const int file = ::open(path, O_RDONLY | O_CLOEXEC);
  struct stat status{};
  if (file < 0 || ::fstat(file, &status) != 0) die("the file cannot be opened");
  Packed packed{nullptr, static_cast<std::size_t>(status.st_size)};
  void* const at = ::mmap(nullptr, packed.size, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
  if (at == MAP_FAILED) die("the file cannot be mapped");
  // For the server's reads, too: kernels that look for cold pages take those of a file that is only
  // ever read, and then the disk is measured. Where it is not allowed, that is so.
  static_cast<void>(::mlock(at, packed.size));
  packed.bytes = static_cast<Bytef*>(at);
  return packed;
}

/// zlib counts in 32 bits: input is given in parts.
void give(z_stream& zlib, const Packed& packed, std::size_t at) {
  zlib.next_in = packed.bytes + at;
  zlib.avail_in = static_cast<uInt>(std::min<std::size_t>(packed.size - at, 1U << 30));
}

struct Places {
  std::vector<Place> all;
  std::uint64_t unpacked_bytes = 0;
};

Places find_places(const Packed& packed, std::uint64_t span_bytes) {
  constexpr int kBlockEnd = 128;
  constexpr int kLastBlock = 64;
  std::array<Bytef, kOutBytes> out;
  z_stream zlib{};
  if (inflateInit2(&zlib, 31) != Z_OK) die("no memory");
  Places places;
  int status = Z_OK;
  while (status != Z_STREAM_END) {
    const std::size_t at =
        zlib.next_in == nullptr ? 0 : static_cast<std::size_t>(zlib.next_in - packed.bytes);
    give(zlib, packed, at);
    const uInt given = zlib.avail_in;
    zlib.next_out = out.data();
    zlib.avail_out = out.size();
    status = inflate(&zlib, Z_BLOCK);
    places.unpacked_bytes += out.size() - zlib.avail_out;
    if ((status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) || given == 0) {
      die("this is no gzip file of one member");
    }
    const bool is_between = (zlib.data_type & kBlockEnd) != 0 && (zlib.data_type & kLastBlock) == 0;
    if (!is_between ||
        (!places.all.empty() && places.unpacked_bytes < places.all.back().unpacked + span_bytes)) {
      continue;
    }
    Place place{places.unpacked_bytes, static_cast<std::size_t>(zlib.next_in - packed.bytes),
                zlib.data_type & 7, std::vector<Bytef>(kWindowBytes)};
    uInt size = 0;
    inflateGetDictionary(&zlib, place.window.data(), &size);
    place.window.resize(size);
    places.all.push_back(std::move(place));
  }
  inflateEnd(&zlib);
  return places;
}

void inflate_span(const Packed& packed, const Place& place, std::uint64_t bytes) {
  std::array<Bytef, kOutBytes> out;
  z_stream zlib{};
  if (inflateInit2(&zlib, -15) != Z_OK) die("no memory");
  if (place.bits != 0) {
    inflatePrime(&zlib, place.bits, packed.bytes[place.packed - 1] >> (8 - place.bits));
  }
  if (!place.window.empty()) {
    inflateSetDictionary(&zlib, place.window.data(), static_cast<uInt>(place.window.size()));
  }
  give(zlib, packed, place.packed);
  while (bytes > 0) {
    zlib.next_out = out.data();
    zlib.avail_out = static_cast<uInt>(std::min<std::uint64_t>(bytes, out.size()));
    const uInt wanted = zlib.avail_out;
    const int status = inflate(&zlib, Z_NO_FLUSH);
    bytes -= wanted - zlib.avail_out;
    if (status == Z_STREAM_END) break;
    if (status != Z_OK) die("a span cannot be inflated");
  }
  inflateEnd(&zlib);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) die("bare_inflate FILE.gz SPAN-BYTES");
  const Packed packed = map(argv[1]);
  const Places places = find_places(packed, std::strtoull(argv[2], nullptr, 10));
  if (places.all.empty()) die("there is nothing in it");
  std::printf("%zu\n", places.all.size());
  std::fflush(stdout);
  unsigned long long offset = 0;
  while (std::scanf("%llu", &offset) == 1) {
    auto place = std::ranges::upper_bound(places.all, offset, {}, &Place::unpacked);
    if (place != places.all.begin()) --place;
    const auto next = std::next(place);
    const std::uint64_t end = next == places.all.end() ? places.unpacked_bytes : next->unpacked;
    const auto started = std::chrono::steady_clock::now();
    inflate_span(packed, *place, end - place->unpacked);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
    std::printf("%llu %.9f\n", static_cast<unsigned long long>(end - place->unpacked),
                took.count());
    std::fflush(stdout);
  }
  return 0;
}
