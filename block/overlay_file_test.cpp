// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "block/overlay.h"
#include "block/page_cache.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::uint64_t kBlock = Overlay::kBlockBytes;

Bytes filled(std::size_t count, int value) { return Bytes(count, static_cast<std::byte>(value)); }

/// A read-only device, all of one byte.
class Base final : public BlockDevice {
 public:
  Base(std::uint64_t size, int value) : value_(static_cast<std::byte>(value)) {
    geometry_.size_bytes = size;
  }
  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t, std::span<std::byte> out) override {
    std::ranges::fill(out, value_);
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
  const std::byte value_;
  Geometry geometry_;
};

ImageId id_of(int value) {
  ImageId id{};
  id.fill(static_cast<std::byte>(value));
  return id;
}

Result<std::shared_ptr<Overlay>> open_overlay(const std::string& path, std::uint64_t size,
                                              FileOperations& operations = FileOperations::host(),
                                              const ImageId& id = id_of(1)) {
  auto file = OverlayFile::open(path, size, id, operations);
  if (!file) return std::unexpected(std::move(file.error()));
  return std::make_shared<Overlay>(std::make_shared<Base>(size, 0xbb), std::move(*file),
                                   Overlay::Options());
}

Bytes read_all(BlockDevice& device) {
  Bytes bytes(device.geometry().size_bytes);
  REQUIRE(device.read(0, bytes));
  return bytes;
}

/// Lets the n-th call fail, and calls through else.
class FailingOperations final : public FileOperations {
 public:
  FailingOperations(int fail_at, int error) : left_(fail_at), error_(error) {}

  ssize_t pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) override {
    if (fails()) {
      if (error_ != 0) return -1;
      bytes = bytes.first(bytes.size() / 2 + 1);  // a short one
    }
    return FileOperations::pwrite(fd, bytes, offset);
  }
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length) override {
    return fails() && error_ != 0 ? -1 : FileOperations::fallocate(fd, mode, offset, length);
  }
  int fdatasync(int fd) override {
    return fails() && error_ != 0 ? -1 : FileOperations::fdatasync(fd);
  }
  bool has_failed() const { return left_ < 0; }

 private:
  bool fails() {
    if (left_-- != 0) return false;
    errno = error_;
    return true;
  }
  int left_;
  const int error_;
};

/// Writes down every change of a file, to make of it what a disk may hold after a crash.
class RecordingOperations final : public FileOperations {
 public:
  struct Change {
    enum class Kind { write, punch, allocate, sync } kind;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    Bytes bytes;
  };

  ssize_t pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) override {
    changes.push_back({Change::Kind::write, offset, bytes.size(), {bytes.begin(), bytes.end()}});
    return FileOperations::pwrite(fd, bytes, offset);
  }
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length) override {
    const bool punches = (mode & FALLOC_FL_PUNCH_HOLE) != 0;
    changes.push_back({punches ? Change::Kind::punch : Change::Kind::allocate, offset, length, {}});
    return FileOperations::fallocate(fd, mode, offset, length);
  }
  int fdatasync(int fd) override {
    changes.push_back({Change::Kind::sync, 0, 0, {}});
    return FileOperations::fdatasync(fd);
  }

  std::vector<Change> changes;
};

/// What one block may hold after a crash: what it held at the last flush, or anything since.
struct Allowed {
  std::vector<int> values;
};

}  // namespace

TEST_CASE("a persistent overlay is found again as it was flushed") {
  const TempDir dir;
  const std::string path = (dir / "overlay").string();
  // Three pages of the map, the last block a short one.
  const std::uint64_t size = 2 * OverlayFile::kBlocksPerPage * kBlock + 5000;
  Bytes expected;
  {
    const auto overlay = open_overlay(path, size);
    REQUIRE(overlay);
    REQUIRE((*overlay)->write(100, filled(50, 1)));
    REQUIRE(
        (*overlay)->write(OverlayFile::kBlocksPerPage * kBlock - kBlock, filled(3 * kBlock, 2)));
    REQUIRE((*overlay)->zero({10 * kBlock, 5 * kBlock}, false));
    REQUIRE((*overlay)->zero({20 * kBlock, 5 * kBlock}, true));
    REQUIRE((*overlay)->write(size - 10, filled(10, 3)));
    REQUIRE((*overlay)->flush());
    expected = read_all(**overlay);
  }
  const auto facts = OverlayFile::check(path);
  REQUIRE(facts);
  CHECK(facts->size_bytes == size);
  CHECK(facts->base == id_of(1));
  CHECK(facts->written_blocks == 1 + 3 + 5 + 1);
  CHECK(facts->zero_blocks == 5);
  const auto again = open_overlay(path, size);
  REQUIRE(again);
  CHECK((*again)->used_bytes() == 10 * kBlock);
  CHECK(read_all(**again) == expected);
}

TEST_CASE("an overlay belongs to one base and to one process") {
  const TempDir dir;
  const std::string path = (dir / "overlay").string();
  const auto overlay = open_overlay(path, 1U << 20);
  REQUIRE(overlay);
  const auto twice = open_overlay(path, 1U << 20);
  REQUIRE_FALSE(twice);
  CHECK(twice.error().what.find("in use") != std::string::npos);

  const std::string other = (dir / "other").string();
  REQUIRE(open_overlay(other, 1U << 20));
  for (const auto& wrong : {open_overlay(other, 2U << 20),
                            open_overlay(other, 1U << 20, FileOperations::host(), id_of(2))}) {
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().code == Errc::usage);
    CHECK(wrong.error().what.find("another image") != std::string::npos);
  }
}

TEST_CASE("damaged, foreign and newer overlays are refused with a reason") {
  const TempDir dir;
  const std::string path = (dir / "overlay").string();
  {
    const auto overlay = open_overlay(path, 1U << 20);
    REQUIRE(overlay);
    REQUIRE((*overlay)->write(0, filled(kBlock, 1)));
    REQUIRE((*overlay)->flush());
    REQUIRE((*overlay)->write(kBlock, filled(kBlock, 1)));
    REQUIRE((*overlay)->flush());
  }
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  const UniqueFd closes(fd);
  const auto reason = [&] {
    const auto checked = OverlayFile::check(path);
    const auto opened = open_overlay(path, 1U << 20);
    REQUIRE_FALSE(checked);
    REQUIRE_FALSE(opened);
    CHECK(checked.error().what == opened.error().what);
    return checked.error().what.substr(path.size() + 2);
  };
  const auto put = [&](std::uint64_t offset, std::string_view bytes) {
    REQUIRE(::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
            static_cast<ssize_t>(bytes.size()));
  };
  SECTION("cut off") {
    REQUIRE(::ftruncate(fd, 3'000'000) == 0);
    CHECK(reason().starts_with("it has 3000000 bytes of"));
    REQUIRE(::ftruncate(fd, 100) == 0);
    CHECK(reason() == "it is too short to be an overlay");
  }
  SECTION("something else") {
    put(0, "QFI\xfb");
    CHECK(reason() == "it is not an overlay of mkvirtfs");
  }
  SECTION("of the future") {
    put(8, std::string_view("\x02\0\0\0", 4));
    CHECK(reason() == "it is an overlay of version 2, and this program knows versions up to 1");
  }
  SECTION("a header with another size") {
    put(16, "x");
    CHECK(reason() == "its header is damaged");
  }
  SECTION("a map with a flipped bit, without a journal that mends it") {
    put(4096, "x");              // the journal's header
    put(3 * 4096 + 64, "\x06");  // the first page of the map
    CHECK(reason() == "page 0 of its map is damaged");
  }
  SECTION("a torn page is mended by the journal") {
    put(3 * 4096 + 64, "\xff");
    const auto facts = OverlayFile::check(path);
    REQUIRE(facts);
    CHECK(facts->journal_was_pending);
    CHECK(facts->written_blocks == 2);
    REQUIRE(open_overlay(path, 1U << 20));
    REQUIRE(OverlayFile::check(path));
    CHECK_FALSE(OverlayFile::check(path)->journal_was_pending);
  }
}

TEST_CASE("after a crash at any instant each block is old or new, and nothing flushed is lost") {
  const auto seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t limit) { return random() % limit; };
  constexpr std::uint64_t kBlocks = 40;
  constexpr std::uint64_t kSize = kBlocks * kBlock;
  using Change = RecordingOperations::Change;

  const TempDir dir(fast_place());
  const std::string path = (dir / "overlay").string();
  RecordingOperations operations;
  // What each block may be, after the change of that number was the last that was begun.
  std::vector<std::vector<Allowed>> allowed_after;
  std::vector<Allowed> allowed(kBlocks, Allowed{{0xbb}});
  const auto keep_up = [&] { allowed_after.resize(operations.changes.size(), allowed); };
  {
    const auto overlay = open_overlay(path, kSize, operations);
    REQUIRE(overlay);
    keep_up();
    for (int step = 1; step <= 60; ++step) {
      const std::uint64_t first = below(kBlocks);
      const std::uint64_t count = 1 + below(std::min<std::uint64_t>(kBlocks - first, 6));
      const std::uint64_t kind = below(6);
      if (kind == 0) {
        // Until it has succeeded everything since the last one is possible.
        REQUIRE((*overlay)->flush());
        keep_up();
        for (Allowed& block : allowed) block.values = {block.values.back()};
        continue;
      }
      const int value = kind <= 3 ? step : 0;
      for (std::uint64_t block = first; block < first + count; ++block) {
        allowed[block].values.push_back(value);
      }
      if (kind <= 3) {
        REQUIRE((*overlay)->write(first * kBlock, filled(count * kBlock, value)));
      } else {
        REQUIRE((*overlay)->zero({first * kBlock, count * kBlock}, kind == 4));
      }
      keep_up();
    }
    REQUIRE((*overlay)->flush());
    keep_up();
  }
  keep_up();

  const std::string crashed = (dir / "crashed").string();
  std::uint64_t file_size = 0;
  {
    const UniqueFd whole(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    file_size = static_cast<std::uint64_t>(::lseek(whole.get(), 0, SEEK_END));
  }
  // The first syncs belong to the making of the file.
  std::size_t begin = 0;
  for (int syncs = 0; syncs < 2; ++begin) {
    if (operations.changes[begin].kind == Change::Kind::sync) ++syncs;
  }
  for (std::size_t end = begin; end < operations.changes.size(); ++end) {
    CAPTURE(end);
    // All up to the last sync is on the disk; of what came behind it, any part, in any order.
    std::size_t synced = 0;
    for (std::size_t i = 0; i <= end; ++i) {
      if (operations.changes[i].kind == Change::Kind::sync) synced = i;
    }
    for (int turn = 0; turn < 3; ++turn) {
      const UniqueFd file(::open(crashed.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
      REQUIRE(::ftruncate(file.get(), static_cast<off_t>(file_size)) == 0);
      for (std::size_t i = 0; i <= end; ++i) {
        const Change& change = operations.changes[i];
        // One turn is the death of the process alone: all that was done stays.
        const bool lost = i > synced && turn > 0 && below(2) == 0;
        if (lost || change.kind == Change::Kind::sync) continue;
        if (change.kind == Change::Kind::write) {
          // What was not synced may be there in part, in whole sectors.
          const bool torn = i > synced && turn == 2 && below(4) == 0;
          const std::size_t length = torn ? below(change.length / 512 + 1) * 512 : change.length;
          REQUIRE(::pwrite(file.get(), change.bytes.data(), length,
                           static_cast<off_t>(change.offset)) == static_cast<ssize_t>(length));
        } else {
          ::fallocate(
              file.get(),
              FALLOC_FL_KEEP_SIZE | (change.kind == Change::Kind::punch ? FALLOC_FL_PUNCH_HOLE : 0),
              static_cast<off_t>(change.offset), static_cast<off_t>(change.length));
        }
      }
      const auto overlay = open_overlay(crashed, kSize);
      REQUIRE(overlay);
      const Bytes got = read_all(**overlay);
      for (std::uint64_t block = 0; block < kBlocks; ++block) {
        const std::vector<int>& values = allowed_after[end][block].values;
        const auto bytes = std::span(got).subspan(block * kBlock, kBlock);
        const bool right = std::ranges::any_of(values, [&](int value) {
          return std::ranges::all_of(bytes,
                                     [&](std::byte byte) { return byte == std::byte(value); });
        });
        // A torn write leaves sectors of both, as any disk does.
        const bool sectors_right = std::ranges::all_of(bytes, [&](std::byte byte) {
          return std::ranges::any_of(values, [&](int value) { return byte == std::byte(value); });
        });
        const bool is_right = turn == 2 ? sectors_right : right;
        CAPTURE(block, turn, values);
        REQUIRE(is_right);
      }
    }
  }
}

TEST_CASE("whatever call fails, what was flushed stays, and the failure is told") {
  const TempDir dir(fast_place());
  for (const int error : {EIO, ENOSPC, 0}) {
    for (int call = 0; call < 40; ++call) {
      CAPTURE(error, call);
      const std::string path =
          (dir / ("overlay-" + std::to_string(error) + std::to_string(call))).string();
      {
        const auto overlay = open_overlay(path, 1U << 20);
        REQUIRE(overlay);
        REQUIRE((*overlay)->write(0, filled(4 * kBlock, 1)));
        REQUIRE((*overlay)->flush());
      }
      FailingOperations operations(call, error);
      bool told = false;
      bool failed = false;  // before the overlay ended, which nobody can be told of
      int flushed = 1;
      {
        auto overlay = open_overlay(path, 1U << 20, operations);
        told = !overlay;
        if (overlay) {
          for (int value = 2; value < 6; ++value) {
            const bool written = (*overlay)->write(0, filled(4 * kBlock, value)).has_value() &&
                                 (*overlay)->zero({8 * kBlock, 4 * kBlock}, true).has_value();
            const bool safe = (*overlay)->flush().has_value();
            if (!written || !safe) told = true;
            if (written && safe) flushed = value;
          }
        }
        failed = operations.has_failed();
      }
      // Short writes are gone on with; anything else that failed was told.
      if (failed) CHECK(told == (error != 0));
      const auto again = open_overlay(path, 1U << 20);
      REQUIRE(again);
      Bytes got(kBlock);
      REQUIRE((*again)->read(0, got));
      CHECK(static_cast<int>(got[0]) >= flushed);
      if (!operations.has_failed()) CHECK(static_cast<int>(got[0]) == 5);
    }
  }
}

TEST_CASE("the id of a base is that of its bytes and its map") {
  Base one(100'000, 1);
  Base same(100'000, 1);
  Base longer(100'001, 1);
  Base other(100'000, 2);
  const auto id = image_id(one);
  REQUIRE(id);
  CHECK(*id == *image_id(same));
  CHECK(*id != *image_id(longer));
  CHECK(*id != *image_id(other));
}

}  // namespace mkvirtfs
