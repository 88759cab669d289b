// SPDX-License-Identifier: BSD-3-Clause
// Overlay files (docs/layout-overlay.md): the input is the pages of one and what is done with it.
// Whatever the file holds, it is opened or refused, check() and open() agree on that, and what
// opens works: its states are those of the map, what is written is read, what was flushed is there
// when the process dies, and snapshots hold what was there when they were taken.
//
// Input: u8 flags (1 and 2 say which length the file has: the right one, one byte less, a page
// more, or the end of its pages; 4: opened over another base; 8: opened as another size; 16: the
// process dies; 32: the file is a layer below an overlay that is sound), u8 number of operations, 8
// bytes for each (u8 command, u8 value, u32 offset, u16 length); then the pages from the file's
// beginning on: u16 (13 bits: how many bytes follow; 0x4000: put the checksum of the journal's
// entries in; 0x8000: put its own checksum in) and these bytes, behind which the page is zeroes. So
// a mutation needs to hit no checksum, and reaches what is behind.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../support/temp_dir.h"
#include "block/overlay/file.h"
#include "block/overlay/overlay.h"
#include "block/overlay/snapshot.h"
#include "fuzz_require.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/sha256.h"
#include "support/unique_fd.h"

using namespace mkvirtfs;

namespace {

constexpr std::size_t kPage = kOverlayPageBytes;
constexpr std::uint64_t kBlock = Overlay::kBlockBytes;
constexpr std::size_t kOperationBytes = 8;
constexpr std::size_t kMostPages = 64;
constexpr std::size_t kChecksumBytes = 16;
/// Opening costs memory for each page of the map: 64 of these are enough.
constexpr std::uint64_t kLargestOpened = std::uint64_t{4} << 30;
/// For a file that says nothing.
constexpr std::uint64_t kSizeOfNew = 100'000;
constexpr auto kBaseByte = std::byte{0xbb};

using Page = std::array<std::byte, kPage>;
using Bytes = std::span<const std::byte>;

/// A read-only device, all of one byte.
class Base final : public BlockDevice {
 public:
  explicit Base(std::uint64_t size_bytes) { geometry_.size_bytes = size_bytes; }
  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t, std::span<std::byte> out) override {
    std::ranges::fill(out, kBaseByte);
    return {};
  }
  void map(Range range, ExtentSink& sink) const override {
    if (range.length == 0) return;
    Extent extent;
    extent.offset = range.offset;
    extent.length = range.length;
    extent.kind = ExtentKind::computed;
    sink.extent(extent);
  }

 private:
  Geometry geometry_;
};

/// A process that can die: what it does from then on does not happen.
class MortalOperations final : public FileOperations {
 public:
  ssize_t pwrite(int fd, Bytes bytes, std::uint64_t offset) override {
    return dead ? failed() : FileOperations::pwrite(fd, bytes, offset);
  }
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length) override {
    return dead ? failed() : FileOperations::fallocate(fd, mode, offset, length);
  }
  int fdatasync(int fd) override { return dead ? failed() : FileOperations::fdatasync(fd); }

  bool dead = false;

 private:
  static int failed() {
    errno = EIO;
    return -1;
  }
};

/// What is put into the file, and what its header says.
struct Image {
  std::vector<Page> pages;
  std::uint64_t size_bytes = 0;
  ImageId base{};
  LayerId id{};
};

void put_checksum(Bytes of, std::span<std::byte> page, std::size_t at) {
  Sha256 sha;
  sha.update(of);
  const std::array<std::byte, 32> sum = sha.finish();
  std::copy_n(sum.begin(), kChecksumBytes, page.begin() + static_cast<std::ptrdiff_t>(at));
}

bool is_sealed(const Page& page) {
  Page sealed = page;
  put_checksum(std::span(page).first(kPage - kChecksumBytes), sealed, kPage - kChecksumBytes);
  return sealed == page;
}

/// The header that counts: the first page, or the one that the journal of a frozen layer has.
const Page& header_of(const Image& image) {
  if (image.pages.size() < 3) return image.pages[0];
  const Page& journal = image.pages[1];
  Page counted = journal;
  put_checksum(image.pages[2], counted, 24);
  const auto begins_with = [](const Page& page, std::string_view magic) {
    return std::ranges::equal(std::as_bytes(std::span(magic)), std::span(page).first(8));
  };
  const bool is_journaled = begins_with(journal, "MKVJRNL\n") && is_sealed(journal) &&
                            load_le<std::uint64_t>(journal, 16) == 1 && counted == journal &&
                            begins_with(image.pages[2], "MKVOVL\r\n") && is_sealed(image.pages[2]);
  return image.pages[is_journaled ? 2 : 0];
}

Image take_image(Bytes input) {
  Image image;
  std::vector<std::uint16_t> heads;
  while (input.size() >= 2 && heads.size() < kMostPages) {
    heads.push_back(load_le<std::uint16_t>(input));
    input = input.subspan(2);
    const auto length = std::min<std::size_t>({heads.back() & 0x1fffU, kPage, input.size()});
    std::ranges::copy(input.first(length), image.pages.emplace_back().begin());
    input = input.subspan(length);
  }
  const auto seal = [&](std::size_t number) {
    Page& page = image.pages[number];
    if ((heads[number] & 0x8000) == 0) return;
    put_checksum(std::span(page).first(kPage - kChecksumBytes), page, kPage - kChecksumBytes);
  };
  // The entries of the journal are sealed before their checksum is taken, and that before its own.
  for (std::size_t number = 0; number < heads.size(); ++number) {
    if (number != 1) seal(number);
  }
  if (heads.size() > 1) {
    if ((heads[1] & 0x4000) != 0) {
      const auto count = std::min<std::uint64_t>(load_le<std::uint64_t>(image.pages[1], 16),
                                                 image.pages.size() - 2);
      put_checksum(std::as_bytes(std::span(image.pages).subspan(2, count)), image.pages[1], 24);
    }
    seal(1);
  }
  if (!image.pages.empty()) {
    const Page& header = header_of(image);
    image.size_bytes = load_le<std::uint64_t>(header, 16);
    std::copy_n(header.begin() + 24, image.base.size(), image.base.begin());
    if (load_le<std::uint32_t>(header, 8) > 1) {
      std::copy_n(header.begin() + 64, image.id.size(), image.id.begin());
    }
  }
  return image;
}

std::uint64_t map_pages(std::uint64_t size_bytes) {
  return ceil_div<std::uint64_t>(size_bytes, kBlocksPerMapPage * kBlock);
}

/// How long the file of an overlay of that size is.
std::uint64_t file_bytes(std::uint64_t size_bytes) {
  size_bytes %= std::uint64_t{1} << 62;  // more are refused
  return round_up<std::uint64_t>((2 + 2 * map_pages(size_bytes)) * kPage, 2U << 20) + size_bytes;
}

bool is_zero(const Page& page) {
  return std::ranges::all_of(page, [](std::byte byte) { return byte == std::byte{0}; });
}

/// What passed check() has checksums that are right, and its blocks are those of the map; the
/// journal is left to the tests of crashes.
void check_facts(const Image& image, const OverlayFile::Facts& facts) {
  const OverlayHeader& header = facts.header;
  FUZZ_REQUIRE(header.size_bytes == image.size_bytes && header.base == image.base);
  FUZZ_REQUIRE(header.id == image.id && header.layer == facts.below.size() + 1);
  FUZZ_REQUIRE(header.page() == header_of(image) || header.version() == 1);
  FUZZ_REQUIRE(is_sealed(header_of(image)));
  if (image.pages.size() > 1 && is_sealed(image.pages[1])) return;
  const std::uint64_t map_at = 2 + map_pages(image.size_bytes);
  const auto end = std::min<std::uint64_t>(image.pages.size(), 2 * map_at - 2);
  std::uint64_t written_blocks = 0;
  for (std::uint64_t number = map_at; number < end; ++number) {
    const Page& page = image.pages[static_cast<std::size_t>(number)];
    FUZZ_REQUIRE(is_zero(page) || is_sealed(page));
    for (std::size_t block = 0; block < kBlocksPerMapPage; ++block) {
      const auto states = std::to_integer<unsigned>(page[64 + block / 4]);
      if ((states >> (block % 4 * 2) & 3) == 1) ++written_blocks;
    }
  }
  FUZZ_REQUIRE(facts.written_blocks == written_blocks);
}

/// What blocks hold that were ever looked at.
class Model {
 public:
  /// All blocks that `range` touches, and their neighbours, to which nothing may happen.
  void look_at(Overlay& overlay, Range range) {
    const std::uint64_t end = std::min(range.end() + kBlock, overlay.geometry().size_bytes);
    for (std::uint64_t block = range.offset / kBlock - (range.offset >= kBlock ? 1 : 0);
         block * kBlock < end; ++block) {
      if (blocks_.contains(block)) continue;
      std::vector<std::byte>& bytes = blocks_[block] = bytes_of(overlay, block);
      // No input reaches the bytes behind the map.
      FUZZ_REQUIRE(bytes[0] == std::byte{0} || bytes[0] == kBaseByte);
      FUZZ_REQUIRE(std::ranges::count(bytes, bytes[0]) == std::ssize(bytes));
    }
  }
  void change(Range range, std::byte value) {
    while (range.length > 0) {
      const std::uint64_t block = range.offset / kBlock;
      const std::uint64_t part = std::min(kBlock - range.offset % kBlock, range.length);
      std::fill_n(blocks_[block].begin() + static_cast<std::ptrdiff_t>(range.offset % kBlock), part,
                  value);
      unflushed_.insert(block);
      range = {range.offset + part, range.length - part};
    }
  }
  void flushed() { unflushed_.clear(); }
  void check(Overlay& overlay) const {
    for (const auto& [block, bytes] : blocks_) {
      if (!unflushed_.contains(block)) FUZZ_REQUIRE(bytes_of(overlay, block) == bytes);
    }
  }

 private:
  static std::vector<std::byte> bytes_of(Overlay& overlay, std::uint64_t block) {
    std::vector<std::byte> bytes(
        static_cast<std::size_t>(std::min(kBlock, overlay.geometry().size_bytes - block * kBlock)));
    FUZZ_REQUIRE(overlay.read(block * kBlock, bytes));
    return bytes;
  }

  std::map<std::uint64_t, std::vector<std::byte>> blocks_;
  std::set<std::uint64_t> unflushed_;
};

/// What a snapshot holds stays apart from what is written behind it.
void take_snapshot(Overlay& overlay, Model& model, const std::string& path) {
  const auto branch = overlay.branch(path, "");
  if (overlay.layer().geometry().overlays == Overlay::kMostLayers && !branch) return;
  FUZZ_REQUIRE(branch && branch->named);
  model.flushed();
  model.check(*branch->overlay);
  FUZZ_REQUIRE(OverlayFile::remove(path));
}

void operate(Overlay& overlay, Model& model, Bytes operation, const std::string& child) {
  const std::uint64_t size = overlay.geometry().size_bytes;
  const auto command = std::to_integer<unsigned>(operation[0]) % 7;
  if (command == 6) return take_snapshot(overlay, model, child);
  const std::byte value = operation[1];
  Range range{load_le<std::uint32_t>(operation, 2) % size, 0};
  range.length = std::min<std::uint64_t>(load_le<std::uint16_t>(operation, 6), size - range.offset);
  // Whole blocks are as interesting as any bytes, and rarer.
  if ((value & std::byte{1}) != std::byte{0}) {
    range.offset = round_down<std::uint64_t>(range.offset, kBlock);
    range.length = std::min(round_up<std::uint64_t>(range.length, kBlock), size - range.offset);
  }
  model.look_at(overlay, range);
  if (command <= 1) {
    const std::vector<std::byte> bytes(static_cast<std::size_t>(range.length), value);
    FUZZ_REQUIRE(overlay.write(range.offset, bytes));
    model.change(range, value);
  } else if (command <= 3) {
    FUZZ_REQUIRE(overlay.zero(range, command == 3));
    model.change(range, std::byte{0});
  } else if (command == 4) {
    FUZZ_REQUIRE(overlay.trim(range));
    const std::uint64_t from = round_up<std::uint64_t>(range.offset, kBlock);
    const std::uint64_t to =
        range.end() == size ? size : round_down<std::uint64_t>(range.end(), kBlock);
    if (from < to) model.change({from, to - from}, std::byte{0});
  } else {
    FUZZ_REQUIRE(overlay.flush());
    model.flushed();
  }
  std::uint64_t at = range.offset;
  for_each_extent(overlay, range, [&](const Extent& extent) {
    FUZZ_REQUIRE(extent.offset == at && extent.length > 0);
    at = extent.end();
    return true;
  });
  FUZZ_REQUIRE(at == range.end());
}

/// What is written in all layers.
std::uint64_t written_bytes(const OverlayFile::Facts& facts) {
  std::uint64_t blocks = facts.written_blocks;
  for (const OverlayFile::Facts& below : facts.below) blocks += below.written_blocks;
  return blocks * kBlock;
}

/// One run of the program over the file, from its opening to its end, and what the next one finds.
void run(const std::string& path, std::uint64_t size_bytes, const ImageId& base, bool dies,
         Bytes operations) {
  const auto facts = OverlayFile::check(path);
  const auto over_base = [&](std::unique_ptr<OverlayFile> file) {
    return std::make_unique<Overlay>(std::make_shared<Base>(size_bytes), std::move(file),
                                     Overlay::Options());
  };
  MortalOperations process;
  auto file = OverlayFile::open(path, size_bytes, base, process);
  FUZZ_REQUIRE(file);
  auto overlay = over_base(std::move(*file));
  // Without facts it was begun anew.
  FUZZ_REQUIRE(overlay->used_bytes() == (facts ? written_bytes(*facts) : 0));
  Model model;
  for (; size_bytes > 0 && operations.size() >= kOperationBytes;
       operations = operations.subspan(kOperationBytes)) {
    operate(*overlay, model, operations.first(kOperationBytes), path + "-child");
  }
  const std::uint64_t used_bytes = overlay->used_bytes();
  // The end of an overlay is a flush.
  process.dead = dies;
  if (!dies) model.flushed();
  overlay.reset();

  const auto facts_after = OverlayFile::check(path);
  FUZZ_REQUIRE(facts_after && facts_after->header.size_bytes == size_bytes &&
               facts_after->header.base == base);
  if (!dies) FUZZ_REQUIRE(written_bytes(*facts_after) == used_bytes);
  auto again = OverlayFile::open(path, size_bytes, base);
  FUZZ_REQUIRE(again);
  model.check(*over_base(std::move(*again)));
}

/// Puts an empty overlay over the layer that the image is.
void put_over(const std::string& path, const Image& image) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  FUZZ_REQUIRE(file);
  OverlayHeader header;
  header.size_bytes = image.size_bytes;
  header.base = image.base;
  header.layer = 2;
  header.below_id = image.id;
  const Page page = header.page();
  FUZZ_REQUIRE(::pwrite(file.get(), page.data(), page.size(), 0) == std::ssize(page));
  FUZZ_REQUIRE(::ftruncate(file.get(), static_cast<off_t>(file_bytes(image.size_bytes))) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const TempDir directory(fast_place());
  static const std::string path = (directory / "overlay").string();
  auto input = std::as_bytes(std::span(data, size));
  if (input.size() < 2) return 0;
  const auto flags = std::to_integer<unsigned>(input[0]);
  const std::size_t operations_bytes =
      std::min(std::to_integer<std::size_t>(input[1]) % 32 * kOperationBytes, input.size() - 2);
  const Bytes operations = input.subspan(2, operations_bytes);
  Image image = take_image(input.subspan(2 + operations_bytes));
  if (image.pages.empty()) image.size_bytes = kSizeOfNew;

  const bool is_below = (flags & 32) != 0 && !image.pages.empty();
  const std::string image_path = is_below ? overlay_layer_path(path, 1) : path;
  FUZZ_REQUIRE(OverlayFile::remove(path));
  const UniqueFd file(::open(image_path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  FUZZ_REQUIRE(file);
  bool is_written = false;
  for (std::size_t number = 0; number < image.pages.size(); ++number) {
    const Page& page = image.pages[number];
    if (is_zero(page)) continue;
    is_written = true;
    FUZZ_REQUIRE(::pwrite(file.get(), page.data(), page.size(),
                          static_cast<off_t>(number * kPage)) == std::ssize(page));
  }
  const std::uint64_t whole = file_bytes(image.size_bytes);
  const std::uint64_t length = image.pages.empty() ? 0
                               : (flags & 3) == 3  ? image.pages.size() * kPage
                               : (flags & 3) == 2  ? whole + kPage
                               : (flags & 3) == 1  ? whole - 1
                                                   : whole;
  FUZZ_REQUIRE(::ftruncate(file.get(), static_cast<off_t>(length)) == 0);

  const auto facts = OverlayFile::check(image_path);
  if (facts) {
    FUZZ_REQUIRE(length >= whole);
    check_facts(image, *facts);
  } else {
    FUZZ_REQUIRE(!facts.error().what.empty());
  }
  if (image.size_bytes > kLargestOpened) return 0;
  if (is_below) put_over(path, image);
  // What is frozen is opened below another, and nothing else is.
  const bool is_sound =
      facts && facts->header.is_frozen() == is_below && (!is_below || facts->header.layer == 1);
  FUZZ_REQUIRE(!is_below || is_sound == OverlayFile::check(path).has_value());
  if ((flags & 4) != 0) image.base[0] ^= std::byte{1};
  if ((flags & 8) != 0) ++image.size_bytes;
  // What nobody ever wrote to becomes an overlay of anything.
  const bool is_new =
      !is_below && (length == 0 || (!is_written && length == file_bytes(image.size_bytes)));
  if (is_new || (is_sound && (flags & 12) == 0)) {
    run(path, image.size_bytes, image.base, (flags & 16) != 0, operations);
  } else {
    FUZZ_REQUIRE(!OverlayFile::open(path, image.size_bytes, image.base));
  }
  return 0;
}
