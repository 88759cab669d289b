// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/overlay.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "block/overlay/file.h"
#include "block/testing/derived_image.h"
#include "block/testing/faulty_device.h"
#include "block/testing/waiting_file_system.h"
#include "tests/support/hinted_text.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

using Bytes = std::vector<std::byte>;

/// A read-only device of bytes in memory, whose blocks of zeroes are holes. Counts its reads.
class Base final : public BlockDevice {
 public:
  explicit Base(Bytes bytes) : bytes_(std::move(bytes)) { geometry_.size_bytes = bytes_.size(); }

  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    ++reads;
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    return {};
  }
  void map(Range range, ExtentSink& sink) const override {
    while (range.length > 0) {
      Extent extent;
      extent.offset = range.offset;
      extent.length = std::min(range.length, 4096 - range.offset % 4096);
      const auto from = bytes_.begin() + static_cast<std::ptrdiff_t>(range.offset);
      if (!std::all_of(from, from + static_cast<std::ptrdiff_t>(extent.length),
                       [](std::byte byte) { return byte == std::byte{0}; })) {
        extent.kind = ExtentKind::memory;
        extent.memory = bytes_.data() + range.offset;
      }
      if (!sink.extent(extent)) return;
      range = {extent.end(), range.end() - extent.end()};
    }
  }

  std::atomic<int> reads = 0;

 private:
  Bytes bytes_;
  Geometry geometry_;
};

/// Every other pair of blocks is zeroes.
Bytes patterned(std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    if (i / 8192 % 2 == 0) bytes[i] = static_cast<std::byte>(i % 251 + 1);
  }
  return bytes;
}

std::shared_ptr<Overlay> overlay_over(std::shared_ptr<BlockDevice> below,
                                      const Overlay::Options& options = {}) {
  const std::uint64_t size = below->geometry().size_bytes;
  auto store = OverlayStore::in_memory(size);
  REQUIRE(store);
  return std::make_shared<Overlay>(std::move(below), std::move(*store), options);
}

/// A file of one byte over and over, which is never at hand.
class ColdStore final : public ContentStore {
 public:
  static constexpr std::byte kByte{0x21};
  Result<void> read(ContentNo, std::uint64_t, std::span<std::byte> out) override {
    std::ranges::fill(out, kByte);
    return {};
  }
  Result<Pin> pin(ContentNo) override { return Pin{}; }
  Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
  std::string name(ContentNo) const override { return "cold"; }
};

Bytes read_all(BlockDevice& device) {
  Bytes bytes(device.geometry().size_bytes);
  REQUIRE(device.read(0, bytes));
  return bytes;
}

/// Reads by the map, as a server does.
Bytes read_by_map(BlockDevice& device) {
  Bytes bytes(device.geometry().size_bytes);
  std::uint64_t expected = 0;
  for_each_extent(device, {0, bytes.size()}, [&](const Extent& extent) {
    REQUIRE(extent.offset == expected);
    REQUIRE(extent.length > 0);
    expected = extent.end();
    const auto part = std::span(bytes).subspan(extent.offset, extent.length);
    if (extent.kind == ExtentKind::memory) std::copy_n(extent.memory, part.size(), part.begin());
    if (extent.kind == ExtentKind::content) {
      const Result<bool> got =
          extent.store->read_at_once(extent.content, extent.content_offset, part);
      REQUIRE(got);
      // Space that is allocated and was never written is in no page cache.
      if (!*got) REQUIRE(extent.store->read(extent.content, extent.content_offset, part));
    }
    return true;
  });
  REQUIRE(expected == bytes.size());
  return bytes;
}

std::uint64_t stored_bytes(int fd) {
  struct stat status{};
  REQUIRE(::fstat(fd, &status) == 0);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

Bytes filled(std::size_t count, int value) { return Bytes(count, static_cast<std::byte>(value)); }

}  // namespace

TEST_CASE("an overlay is its base with what was written, whatever the order", "[one-thread]") {
  enum class Kept { memory, directory, file };
  const Kept kept = GENERATE(Kept::memory, Kept::directory, Kept::file);
  const auto seed = std::random_device()();
  CAPTURE(seed, static_cast<int>(kept));
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t limit) { return random() % limit; };
  const TempDir dir(kept == Kept::file ? fast_place() : std::filesystem::temp_directory_path());

  /// An overlay, and what it must hold.
  struct Disk {
    std::shared_ptr<Overlay> overlay;
    Bytes model;
    std::string path;
  };
  // Some sizes end within a block, some span several groups of blocks.
  for (const std::size_t size : {1000U, 4096U, 70'001U, 5'000'000U}) {
    const auto base = std::make_shared<Base>(patterned(size));
    const std::string first_path = (dir / std::to_string(size)).string();
    const auto make_store = [&] {
      auto store = kept == Kept::memory ? OverlayStore::in_memory(size)
                                        : OverlayStore::in_directory(dir.path().string(), size);
      REQUIRE(store);
      return std::move(*store);
    };
    const auto open = [&](const std::string& path) -> std::shared_ptr<Overlay> {
      if (kept != Kept::file) {
        return std::make_shared<Overlay>(base, make_store(), Overlay::Options());
      }
      auto file = OverlayFile::open(path, size, ImageId{});
      REQUIRE(file);
      return std::make_shared<Overlay>(base, std::move(*file), Overlay::Options());
    };
    std::vector<Disk> disks = {{open(first_path), patterned(size), first_path}};
    std::vector<std::pair<std::shared_ptr<BlockDevice>, Bytes>> frozen;
    for (int step = 0; step < 400; ++step) {
      Disk& disk = disks[below(disks.size())];
      const std::uint64_t offset = below(size);
      const std::uint64_t most = size - offset;
      const std::uint64_t length =
          below(4) == 0 ? below(most + 1) : below(std::min<std::uint64_t>(most, 10'000) + 1);
      const auto part = std::span(disk.model).subspan(offset, length);
      switch (below(11)) {
        case 0:
        case 1:
        case 2:
        case 3: {
          Bytes data(length);
          std::ranges::generate(data, [&] { return static_cast<std::byte>(random()); });
          REQUIRE(disk.overlay->write(offset, data));
          std::ranges::copy(data, part.begin());
          break;
        }
        case 4:
        case 5:
          REQUIRE(disk.overlay->zero({offset, length}, below(2) == 0));
          std::ranges::fill(part, std::byte{0});
          break;
        case 6: {
          // Whole blocks read as zeroes then, and others stay.
          REQUIRE(disk.overlay->trim({offset, length}));
          for (std::uint64_t at = offset; at < offset + length; ++at) {
            const std::uint64_t block = at / 4096 * 4096;
            const std::uint64_t end = std::min<std::uint64_t>(block + 4096, size);
            if (block >= offset && end <= offset + length) disk.model[at] = std::byte{0};
          }
          break;
        }
        case 7:
          if (below(3) == 0) REQUIRE(disk.overlay->flush());
          break;
        case 8:
          if (below(8) != 0) break;
          if (kept != Kept::file) {
            const auto snapshot = disk.overlay->snapshot(make_store());
            if (!snapshot) break;
            frozen.emplace_back(*snapshot, disk.model);
            disks.push_back({std::make_shared<Overlay>(*snapshot, make_store(), Overlay::Options()),
                             frozen.back().second,
                             {}});
          } else if (below(2) == 0) {
            disk.overlay.reset();
            disk.overlay = open(disk.path);
          } else if (disk.overlay->layer().geometry().overlays < Overlay::kMostLayers) {
            const std::string path = first_path + "-" + std::to_string(disks.size());
            auto branch = disk.overlay->branch(path, "");
            REQUIRE(branch);
            REQUIRE(branch->named);
            Bytes model = disk.model;
            disks.push_back({std::move(branch->overlay), std::move(model), path});
          }
          break;
        default: {
          Bytes got(length);
          REQUIRE(disk.overlay->read(offset, got));
          REQUIRE(std::ranges::equal(got, part));
        }
      }
    }
    for (const Disk& disk : disks) {
      CHECK(read_all(*disk.overlay) == disk.model);
      CHECK(read_by_map(*disk.overlay) == disk.model);
    }
    for (const auto& [device, bytes] : frozen) CHECK(read_all(*device) == bytes);
    CHECK(read_all(*base) == patterned(size));
    if (kept == Kept::file) {
      for (Disk& disk : disks) disk.overlay.reset();
      for (const Disk& disk : disks) {
        REQUIRE(OverlayFile::check(disk.path));
        CHECK(read_all(*open(disk.path)) == disk.model);
      }
    }
  }
}

TEST_CASE("overlays stack, and the map has how deep everything lies") {
  const auto base = std::make_shared<Base>(patterned(64 * 4096));
  const auto lower = overlay_over(base);
  REQUIRE(lower->write(0, filled(8192, 1)));
  const auto upper = overlay_over(lower);
  REQUIRE(upper->write(4096, filled(4096, 2)));
  REQUIRE(upper->zero({12'288, 4096}, false));
  CHECK(upper->geometry().overlays == 2);

  struct Seen {
    std::uint64_t offset;
    ExtentKind kind;
    int layer;
    bool operator==(const Seen&) const = default;
  };
  std::vector<Seen> seen;
  for_each_extent(*upper, {0, 5 * 4096}, [&](const Extent& extent) {
    seen.push_back({extent.offset, extent.kind, extent.layer});
    return true;
  });
  CHECK(seen == std::vector<Seen>{{0, ExtentKind::content, 1},
                                  {4096, ExtentKind::content, 0},
                                  {8192, ExtentKind::hole, 2},
                                  {12'288, ExtentKind::hole, 0},
                                  {16'384, ExtentKind::memory, 2}});
}

TEST_CASE("a snapshot never changes, and both sides go on apart, several layers deep") {
  constexpr std::size_t kSize = 64 * 4096;
  const auto memory = [] {
    auto store = OverlayStore::in_memory(kSize);
    REQUIRE(store);
    return std::move(*store);
  };
  const auto parent = overlay_over(std::make_shared<Base>(patterned(kSize)));
  Bytes expected = patterned(kSize);
  std::vector<std::pair<std::shared_ptr<BlockDevice>, Bytes>> frozen;
  for (int level = 1; level <= 4; ++level) {
    REQUIRE(parent->write(static_cast<std::uint64_t>(level) * 4096, filled(6000, level)));
    std::fill_n(expected.begin() + level * 4096, 6000, static_cast<std::byte>(level));
    const auto snapshot = parent->snapshot(memory());
    REQUIRE(snapshot);
    frozen.emplace_back(*snapshot, expected);
  }
  REQUIRE(parent->zero({0, kSize}, false));
  std::vector<std::shared_ptr<Overlay>> children;
  for (const auto& [device, bytes] : frozen) {
    CHECK(read_all(*device) == bytes);
    children.push_back(overlay_over(device));
    REQUIRE(children.back()->write(60 * 4096, filled(4096, 77)));
  }
  for (std::size_t i = 0; i < frozen.size(); ++i) {
    Bytes wanted = frozen[i].second;
    CHECK(read_all(*frozen[i].first) == wanted);
    std::fill_n(wanted.begin() + 60 * 4096, 4096, std::byte{77});
    CHECK(read_by_map(*children[i]) == wanted);
  }
  CHECK(read_all(*parent) == Bytes(kSize));
  while (parent->snapshot(memory())) {
  }
  CHECK(parent->layer().geometry().overlays == Overlay::kMostLayers);
}

TEST_CASE("a snapshot beside writers holds whole blocks of theirs") {
  constexpr std::size_t kSize = 512 * 4096;
  const bool in_files = GENERATE(false, true);
  CAPTURE(in_files);
  const TempDir dir(fast_place());
  const auto base = std::make_shared<Base>(Bytes(kSize));
  std::shared_ptr<Overlay> overlay = overlay_over(base);
  if (in_files) {
    auto file = OverlayFile::open((dir / "overlay").string(), kSize, ImageId{});
    REQUIRE(file);
    overlay = std::make_shared<Overlay>(base, std::move(*file), Overlay::Options());
  }
  std::vector<std::shared_ptr<BlockDevice>> frozen;
  {
    std::vector<std::jthread> writers;
    for (int number = 0; number < 2; ++number) {
      writers.emplace_back([&overlay, number](const std::stop_token& stop) {
        std::mt19937 random(static_cast<unsigned>(number));
        for (int write = 1; !stop.stop_requested(); ++write) {
          const Bytes block = filled(4096, static_cast<int>(random() % 255) + 1);
          if (!overlay->write(random() % 512 * 4096, block)) return;
          if (write % 64 == 0 && !overlay->flush()) return;
        }
      });
    }
    for (int i = 0; i < 8; ++i) {
      if (in_files) {
        auto branch = overlay->branch((dir / std::to_string(i)).string(), "");
        REQUIRE(branch);
        frozen.push_back(std::move(branch->overlay));
      } else {
        auto store = OverlayStore::in_memory(kSize);
        REQUIRE(store);
        auto snapshot = overlay->snapshot(std::move(*store));
        REQUIRE(snapshot);
        frozen.push_back(std::move(*snapshot));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  for (const auto& device : frozen) {
    const Bytes bytes = read_all(*device);
    bool whole = true;
    for (std::size_t at = 0; at < kSize; at += 4096) {
      const auto block = std::span(bytes).subspan(at, 4096);
      whole = whole && std::ranges::count(block, block[0]) == 4096;
    }
    CHECK(whole);
  }
}

TEST_CASE("writes of whole blocks, and of blocks that are here, never look below") {
  const auto base = std::make_shared<Base>(patterned(64 * 4096 + 100));
  const auto overlay = overlay_over(base);
  REQUIRE(overlay->write(4096, filled(12'288, 7)));
  REQUIRE(overlay->write(64 * 4096, filled(100, 7)));  // the last block, all of it
  REQUIRE(overlay->write(5000, filled(10, 8)));
  CHECK(base->reads == 0);
  REQUIRE(overlay->write(100, filled(10, 9)));
  CHECK(base->reads == 1);
}

TEST_CASE("zeroes and trims give their space back") {
  const auto base = std::make_shared<Base>(patterned(4U << 20));
  auto store = OverlayStore::in_memory(4U << 20);
  REQUIRE(store);
  Overlay overlay(base, *store, {});
  REQUIRE(overlay.write(0, filled(3U << 20, 1)));
  CHECK(overlay.used_bytes() == 3U << 20);
  CHECK(stored_bytes((*store)->fd()) >= 3U << 20);
  REQUIRE(overlay.trim({0, 1U << 20}));
  REQUIRE(overlay.zero({1U << 20, 1U << 20}, false));
  CHECK(overlay.used_bytes() == 1U << 20);
  CHECK(stored_bytes((*store)->fd()) <= (1U << 20) + (64U << 10));
  // Zeroes that shall keep their space are data for the map.
  REQUIRE(overlay.zero({0, 1U << 20}, true));
  CHECK(overlay.used_bytes() == 2U << 20);
  for_each_extent(overlay, {0, 1U << 20}, [&](const Extent& extent) {
    CHECK(extent.kind == ExtentKind::content);
    return true;
  });
  Bytes got(1U << 20);
  REQUIRE(overlay.read(0, got));
  CHECK(got == filled(1U << 20, 0));
}

TEST_CASE("a limit is kept, and reached it is a lack of space to every kind of write") {
  const auto base = std::make_shared<Base>(patterned(64 * 4096));  // data in 0-1, holes in 2-3, ...
  Overlay::Options options;
  options.most_bytes = 3 * 4096;
  const auto overlay = overlay_over(base, options);
  REQUIRE(overlay->write(0, filled(2 * 4096, 1)));
  // One block is left: two do not fit, and nothing of them is written.
  const Result<void> holes = overlay->write(2 * 4096, filled(2 * 4096, 2));
  REQUIRE_FALSE(holes);
  CHECK(holes.error().code == Errc::no_space);
  const Result<void> data = overlay->write(4 * 4096, filled(2 * 4096, 2));
  REQUIRE_FALSE(data);
  CHECK(data.error().code == Errc::no_space);  // though it was reported as allocated
  CHECK(overlay->used_bytes() == 2 * 4096);
  // What is here can be written again, and what is given back can be used.
  CHECK(overlay->write(0, filled(2 * 4096, 3)));
  CHECK(overlay->zero({40 * 4096, 8 * 4096}, false));
  const Result<void> zeroes = overlay->zero({44 * 4096, 2 * 4096}, true);
  REQUIRE_FALSE(zeroes);
  CHECK(zeroes.error().code == Errc::no_space);
  REQUIRE(overlay->trim({0, 4096}));
  CHECK(overlay->write(2 * 4096, filled(2 * 4096, 2)));
  const Result<void> part = overlay->write(20 * 4096 + 10, filled(100, 2));
  REQUIRE_FALSE(part);
  CHECK(part.error().code == Errc::no_space);
  Bytes expected = patterned(64 * 4096);
  std::fill_n(expected.begin(), 4096, std::byte{0});
  std::fill_n(expected.begin() + 4096, 4096, std::byte{3});
  std::fill_n(expected.begin() + 2 * 4096, 2 * 4096, std::byte{2});
  std::fill_n(expected.begin() + 40 * 4096, 8 * 4096, std::byte{0});
  CHECK(read_all(*overlay) == expected);
}

TEST_CASE("writers of parts of one block do not lose each other's bytes") {
  constexpr std::size_t kSize = 16 * 4096;
  const auto overlay = overlay_over(std::make_shared<Base>(patterned(kSize)));
  // Each thread has every fourth piece of 512 bytes; all of them meet in every block.
  std::atomic<int> failures = 0;
  {
    std::vector<std::jthread> threads;
    for (int number = 0; number < 4; ++number) {
      threads.emplace_back([&, number] {
        for (std::size_t at = static_cast<std::size_t>(number) * 512; at < kSize; at += 2048) {
          if (!overlay->write(at, filled(512, 100 + number))) ++failures;
        }
      });
    }
  }
  CHECK(failures == 0);
  const Bytes got = read_all(*overlay);
  bool right = true;
  for (std::size_t i = 0; i < kSize; ++i) {
    right = right && got[i] == static_cast<std::byte>(100 + i / 512 % 4);
  }
  CHECK(right);
}

TEST_CASE("an overlay in a directory leaves no name behind, and says when there is none") {
  const TempDir dir;
  {
    auto store = OverlayStore::in_directory(dir.path().string(), 1U << 20);
    REQUIRE(store);
    REQUIRE((*store)->write(4096, filled(100, 5)));
    CHECK(std::filesystem::is_empty(dir.path()));
    Bytes got(100);
    REQUIRE((*store)->read(OverlayStore::kContent, 4096, got));
    CHECK(got == filled(100, 5));
  }
  const auto none = OverlayStore::in_directory((dir / "missing").string(), 4096);
  REQUIRE_FALSE(none);
  CHECK_THAT(hinted_text(none.error()), Catch::EndsWith(" [another directory] [overlay=memory]"));
}

TEST_CASE("no lock is held while what is below a block is read", "[point6]") {
  enum class Meanwhile { neighbour, same_block, trim, snapshot };
  const Meanwhile meanwhile =
      GENERATE(Meanwhile::neighbour, Meanwhile::same_block, Meanwhile::trim, Meanwhile::snapshot);
  CAPTURE(static_cast<int>(meanwhile));
  const auto base = std::make_shared<Base>(patterned(4 << 20));
  const auto below = std::make_shared<testing::FaultyDevice>(*base, ~std::uint64_t{0});
  const auto overlay = overlay_over(below);
  Bytes model = read_all(*base);
  const Bytes before = model;
  std::shared_ptr<BlockDevice> frozen;
  const auto write = [&](std::uint64_t offset, const Bytes& bytes) {
    REQUIRE(overlay->write(offset, bytes));
    std::ranges::copy(bytes, model.begin() + static_cast<std::ptrdiff_t>(offset));
  };
  // On the same thread: any lock would be in its own way.
  below->before_read = [&](std::uint64_t number) {
    if (number != 0) return;
    switch (meanwhile) {
      case Meanwhile::neighbour:
        write(8192, filled(4096, 7));
        break;
      case Meanwhile::same_block:
        write(4096, filled(4096, 7));
        break;
      case Meanwhile::trim:
        REQUIRE(overlay->trim({4096, 4096}));
        std::fill_n(model.begin() + 4096, 4096, std::byte{0});
        break;
      case Meanwhile::snapshot: {
        auto store = OverlayStore::in_memory(4 << 20);
        REQUIRE(store);
        auto made = overlay->snapshot(*std::move(store));
        REQUIRE(made);
        frozen = *std::move(made);
        break;
      }
    }
  };
  write(4096 + 100, filled(50, 9));
  CHECK(read_all(*overlay) == model);
  if (frozen) CHECK(read_all(*frozen) == before);
}

TEST_CASE("an overlay says which of its changes may wait", "[point6]") {
  constexpr std::uint64_t kSize = 256 << 20;
  const auto base = std::make_shared<Base>(Bytes(kSize));
  SECTION("in memory: what is long, and what is joined with a device that may wait") {
    const auto plain = std::make_shared<testing::FaultyDevice>(*base, ~std::uint64_t{0});
    const auto overlay = overlay_over(plain);
    const auto waits = [&](DeviceCall call, std::uint64_t offset, std::uint64_t length) {
      return overlay->may_wait(call, {offset, length});
    };
    CHECK_FALSE(waits(DeviceCall::write, 0, 1 << 20));
    CHECK_FALSE(waits(DeviceCall::write, 10, 20));  // holes are at hand
    CHECK_FALSE(waits(DeviceCall::trim, 0, 64 << 20));
    CHECK(waits(DeviceCall::trim, 0, 65 << 20));
    CHECK(waits(DeviceCall::zero_allocated, 0, 65 << 20));
    CHECK_FALSE(waits(DeviceCall::zero_allocated, 0, 1 << 20));
    // Of computed bytes the device below is asked.
    CHECK(waits(DeviceCall::read, 0, 4096));
    CHECK_FALSE(overlay_over(base)->may_wait(DeviceCall::write, {10, 20}));
  }
  SECTION("in memory: what is joined with bytes that the image below derives of a file") {
    const auto image = std::make_shared<testing::DerivedImage>(1 << 20);
    const auto overlay =
        overlay_over(std::make_shared<ImageDevice>(image, std::make_shared<ColdStore>()));
    CHECK(overlay->may_wait(DeviceCall::write, {image->derived().offset + 10, 20}));
    CHECK(overlay->may_wait(DeviceCall::write, {image->content().offset + 10, 20}));
    CHECK_FALSE(overlay->may_wait(DeviceCall::write, {image->derived().offset, 8192}));
    CHECK_FALSE(overlay->may_wait(DeviceCall::write, {image->hole().offset + 10, 20}));
    CHECK(overlay->may_wait(DeviceCall::read, image->derived()));
    CHECK_FALSE(overlay->may_wait(DeviceCall::read, image->computed()));
    // The rest of the block is copied up, and what it is made of is read once.
    const Bytes data(20, std::byte{1});
    REQUIRE(overlay->write(image->derived().offset + 10, data));
    Bytes block(4096);
    REQUIRE(overlay->read(image->derived().offset, block));
    CHECK(block[9] == testing::DerivedImage::derived_byte(ColdStore::kByte));
    CHECK(block[10] == std::byte{1});
    CHECK(block[30] == testing::DerivedImage::derived_byte(ColdStore::kByte));
  }
  SECTION("in a file system that may make any call wait: all") {
    UniqueFd file(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    REQUIRE(file);
    testing::WaitingFileSystem operations;
    const Overlay overlay(base,
                          std::make_shared<OverlayStore>(std::move(file), 0, "slow", operations),
                          Overlay::Options{});
    CHECK(overlay.may_wait(DeviceCall::write, {0, 4096}));
    CHECK(overlay.may_wait(DeviceCall::zero, {0, 4096}));
    CHECK(overlay.may_wait(DeviceCall::trim, {0, 4096}));
  }
}

}  // namespace mkvirtfs
