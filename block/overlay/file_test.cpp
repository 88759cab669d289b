// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "block/overlay/base_manifest.h"
#include "block/overlay/image_id.h"
#include "block/overlay/overlay.h"
#include "block/overlay/snapshot.h"
#include "block/page_cache.h"
#include "block/resized_device.h"
#include "block/testing/computed_extent.h"
#include "support/sha256.h"
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
  void map(Range range, ExtentSink& sink) const override { testing::map_computed(range, sink); }

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
  if (!file) return propagate(file);
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
  /// An error of 0 is a short write.
  FailingOperations(int fail_at, int error) : left_(fail_at), error_(error) {}

  ssize_t pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) override {
    if (fails()) {
      if (error_ != 0) return -1;
      bytes = bytes.first(bytes.size() / 2 + 1);
    }
    return FileOperations::pwrite(fd, bytes, offset);
  }
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length) override {
    return fails_with_error() ? -1 : FileOperations::fallocate(fd, mode, offset, length);
  }
  int ftruncate(int fd, std::uint64_t length) override {
    return fails_with_error() ? -1 : FileOperations::ftruncate(fd, length);
  }
  int fdatasync(int fd) override { return fails_with_error() ? -1 : FileOperations::fdatasync(fd); }
  int create(const std::string& path, int flags) override {
    return fails_with_error() ? -1 : FileOperations::create(path, flags);
  }
  int link(const std::string& from, const std::string& to) override {
    return fails_with_error() ? -1 : FileOperations::link(from, to);
  }
  int rename(const std::string& from, const std::string& to) override {
    return fails_with_error() ? -1 : FileOperations::rename(from, to);
  }
  int unlink(const std::string& path) override {
    return fails_with_error() ? -1 : FileOperations::unlink(path);
  }
  int sync_directory(const std::string& path) override {
    return fails_with_error() ? -1 : FileOperations::sync_directory(path);
  }

  bool has_failed() const { return left_ < 0; }
  void fail_at(int call) { left_ = call; }

 private:
  bool fails() {
    if (left_-- != 0) return false;
    errno = error_;
    return true;
  }
  bool fails_with_error() { return fails() && error_ != 0; }

  int left_;
  const int error_;
};

/// Writes down every change of files and of their names, to make of it what a disk may hold after a
/// crash.
class RecordingOperations final : public FileOperations {
 public:
  struct Change {
    enum class Kind {
      write,
      punch,
      allocate,
      truncate,
      sync,
      name,
      rename,
      unlink,
      sync_names
    } kind;
    ino_t file = 0;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    Bytes bytes;
    std::string name;
    std::string new_name;

    bool is_of_names() const { return kind >= Kind::name; }
  };

  ssize_t pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) override {
    add(fd, Change::Kind::write, offset, bytes.size()).bytes.assign(bytes.begin(), bytes.end());
    return FileOperations::pwrite(fd, bytes, offset);
  }
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length) override {
    const bool punches = (mode & FALLOC_FL_PUNCH_HOLE) != 0;
    add(fd, punches ? Change::Kind::punch : Change::Kind::allocate, offset, length);
    return FileOperations::fallocate(fd, mode, offset, length);
  }
  int ftruncate(int fd, std::uint64_t length) override {
    add(fd, Change::Kind::truncate, 0, length);
    return FileOperations::ftruncate(fd, length);
  }
  int fdatasync(int fd) override {
    if (before_sync) std::exchange(before_sync, nullptr)();
    add(fd, Change::Kind::sync, 0, 0);
    return FileOperations::fdatasync(fd);
  }
  int create(const std::string& path, int flags) override {
    const bool is_new = !std::filesystem::exists(path);
    const int fd = FileOperations::create(path, flags);
    if (is_new) add(fd, Change::Kind::name, 0, 0).name = leaf(path);
    return fd;
  }
  int link(const std::string& from, const std::string& to) override {
    const UniqueFd file(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
    add(file.get(), Change::Kind::name, 0, 0).name = leaf(to);
    return FileOperations::link(from, to);
  }
  int rename(const std::string& from, const std::string& to) override {
    changes.push_back({Change::Kind::rename, 0, 0, 0, {}, leaf(from), leaf(to)});
    return FileOperations::rename(from, to);
  }
  int unlink(const std::string& path) override {
    changes.push_back({Change::Kind::unlink, 0, 0, 0, {}, leaf(path), {}});
    return FileOperations::unlink(path);
  }
  int sync_directory(const std::string& path) override {
    if (before_names) std::exchange(before_names, nullptr)();
    changes.push_back({Change::Kind::sync_names, 0, 0, 0, {}, {}, {}});
    return FileOperations::sync_directory(path);
  }

  std::vector<Change> changes;
  /// Called once, before bytes or names are brought to the disk: what others do meanwhile.
  std::function<void()> before_sync;
  std::function<void()> before_names;

 private:
  static std::string leaf(const std::string& path) {
    return std::filesystem::path(path).filename().string();
  }
  Change& add(int fd, Change::Kind kind, std::uint64_t offset, std::uint64_t length) {
    struct stat status{};
    if (::fstat(fd, &status) != 0) throw std::runtime_error("fstat");
    return changes.emplace_back(Change{kind, status.st_ino, offset, length, {}, {}, {}});
  }
};

/// What a disk may hold after a crash: each block what it held at the last flush, or anything
/// since.
struct Allowed {
  enum class Presence { no, maybe, yes } is_there = Presence::no;
  std::vector<std::vector<int>> blocks;
};

/// What is on a disk when it crashes behind change number `end`.
class Crash {
 public:
  using Change = RecordingOperations::Change;
  enum class Kind {
    process,  ///< all that was done stays
    host,     ///< of what was not synced, any part, in any order
    torn,     ///< the same, and writes stay in part, in whole sectors
  };

  Crash(const std::vector<Change>& changes, std::size_t end, Kind kind, std::mt19937_64& random)
      : changes_(std::span(changes).first(end + 1)), kind_(kind), random_(random) {}

  /// Puts it into an empty directory.
  void make(const std::filesystem::path& directory) {
    std::map<std::string, ino_t> names;
    std::map<ino_t, std::size_t> synced;
    std::size_t synced_names = 0;
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      if (changes_[i].kind == Change::Kind::sync) synced[changes_[i].file] = i;
      if (changes_[i].kind == Change::Kind::sync_names) synced_names = i;
    }
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      const Change& change = changes_[i];
      if (!change.is_of_names() || (i > synced_names && is_lost())) continue;
      if (change.kind == Change::Kind::name) names[change.name] = change.file;
      if (change.kind == Change::Kind::unlink) names.erase(change.name);
      if (change.kind == Change::Kind::rename && names.contains(change.name)) {
        names[change.new_name] = names[change.name];
        names.erase(change.name);
      }
    }
    std::map<ino_t, UniqueFd> files;
    for (const auto& [name, file] : names) {
      const std::string by_number = (directory / std::to_string(file)).string();
      if (!files.contains(file)) {
        files[file] = UniqueFd(::open(by_number.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
      }
      std::filesystem::create_hard_link(by_number, directory / name);
    }
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      const Change& change = changes_[i];
      if (change.is_of_names() || !files.contains(change.file)) continue;
      apply(change, files[change.file].get(), i > synced[change.file]);
    }
    for (const auto& [file, fd] : files) std::filesystem::remove(directory / std::to_string(file));
  }

 private:
  bool is_lost() { return kind_ != Kind::process && random_() % 2 == 0; }

  void apply(const Change& change, int fd, bool is_unsafe) {
    if (is_unsafe && is_lost()) return;
    const auto offset = static_cast<off_t>(change.offset);
    const auto length = static_cast<off_t>(change.length);
    if (change.kind == Change::Kind::write) {
      const bool is_torn = is_unsafe && kind_ == Kind::torn && random_() % 4 == 0;
      const std::size_t count =
          is_torn ? random_() % (change.length / 512 + 1) * 512 : change.bytes.size();
      REQUIRE(::pwrite(fd, change.bytes.data(), count, offset) == static_cast<ssize_t>(count));
    } else if (change.kind == Change::Kind::truncate) {
      REQUIRE(::ftruncate(fd, length) == 0);
    } else if (change.kind != Change::Kind::sync) {
      const int punch = change.kind == Change::Kind::punch ? FALLOC_FL_PUNCH_HOLE : 0;
      ::fallocate(fd, FALLOC_FL_KEEP_SIZE | punch, offset, length);
    }
  }

  const std::span<const Change> changes_;
  const Kind kind_;
  std::mt19937_64& random_;
};

/// Whether each block is one of those that it may be. A torn write leaves sectors of both, as any
/// disk does.
bool is_allowed(const Bytes& got, const std::vector<std::vector<int>>& blocks, bool is_torn) {
  for (std::size_t block = 0; block < blocks.size(); ++block) {
    const auto bytes = std::span(got).subspan(block * kBlock, kBlock);
    const auto is_one = [&](std::byte byte) {
      return std::ranges::any_of(blocks[block],
                                 [&](int value) { return byte == std::byte(value); });
    };
    if (!is_torn && std::ranges::count(bytes, bytes[0]) != std::ssize(bytes)) return false;
    if (!std::ranges::all_of(bytes, is_one)) return false;
  }
  return true;
}

std::vector<std::vector<int>> latest(std::vector<std::vector<int>> blocks) {
  for (std::vector<int>& values : blocks) values = {values.back()};
  return blocks;
}

std::vector<std::string> names_in(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

}  // namespace

TEST_CASE("a persistent overlay is found again as it was flushed") {
  const TempDir dir;
  const std::string path = (dir / "overlay").string();
  // Three pages of the map, the last block a short one.
  const std::uint64_t size = 2 * kBlocksPerMapPage * kBlock + 5000;
  Bytes expected;
  {
    const auto overlay = open_overlay(path, size);
    REQUIRE(overlay);
    REQUIRE((*overlay)->write(100, filled(50, 1)));
    REQUIRE((*overlay)->write(kBlocksPerMapPage * kBlock - kBlock, filled(3 * kBlock, 2)));
    REQUIRE((*overlay)->zero({10 * kBlock, 5 * kBlock}, false));
    REQUIRE((*overlay)->zero({20 * kBlock, 5 * kBlock}, true));
    REQUIRE((*overlay)->write(size - 10, filled(10, 3)));
    REQUIRE((*overlay)->flush());
    expected = read_all(**overlay);
  }
  const auto facts = OverlayFile::check(path);
  REQUIRE(facts);
  CHECK(facts->header.version() == 1);
  CHECK(facts->header.size_bytes == size);
  CHECK(facts->header.base == id_of(1));
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
    put(8, std::string_view("\x03\0\0\0", 4));
    CHECK(reason() == "it is an overlay of version 3, and this program knows versions up to 2");
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

TEST_CASE("after a crash at any instant each block is old or new, and nothing flushed is lost",
          "[one-thread]") {
  const auto seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t limit) { return random() % limit; };
  constexpr std::uint64_t kBlocks = 24;
  constexpr std::uint64_t kSize = kBlocks * kBlock;

  const TempDir dir(fast_place());
  RecordingOperations operations;
  struct Disk {
    std::shared_ptr<Overlay> overlay;
    Allowed allowed;
  };
  std::map<std::string, Disk> disks;
  // What each of them may be, after the change of that number was the last that was begun.
  std::vector<std::map<std::string, Allowed>> allowed_after;
  const auto keep_up = [&] {
    std::map<std::string, Allowed> now;
    for (const auto& [name, disk] : disks) now[name] = disk.allowed;
    allowed_after.resize(operations.changes.size(), now);
  };
  auto made = open_overlay((dir / "first").string(), kSize, operations);
  REQUIRE(made);
  // The first changes belong to the making of the file.
  const std::size_t begin = operations.changes.size();
  keep_up();
  disks["first"] = {*made,
                    {Allowed::Presence::yes, std::vector<std::vector<int>>(kBlocks, {0xbb})}};
  made->reset();
  for (int step = 1; step <= 64; ++step) {
    const auto chosen = std::next(disks.begin(), static_cast<int>(below(disks.size())));
    Disk& disk = chosen->second;
    if (step % 16 == 0) {
      // Until it has succeeded there may be a child, with all that was written before.
      const std::string name = "child-" + std::to_string(step);
      disks[name].allowed = {Allowed::Presence::maybe, latest(disk.allowed.blocks)};
      // Others write beside it until the very end: behind the names of the layers comes a flush,
      // and what is written during that is left for the freezing.
      const auto write_beside = [&] {
        keep_up();
        for (const std::uint64_t block : {below(kBlocks), below(kBlocks)}) {
          disk.allowed.blocks[block].push_back(step);
          disks[name].allowed.blocks = latest(disk.allowed.blocks);
          // A thread of its own, as it would be: this one holds what a flush holds.
          bool is_written = false;
          std::thread([&, at = block * kBlock] {
            is_written = disk.overlay->write(at, filled(kBlock, step)).has_value();
          }).join();
          REQUIRE(is_written);
          keep_up();
        }
      };
      operations.before_names = [&] { operations.before_sync = write_beside; };
      auto branch = disk.overlay->branch((dir / name).string(), "");
      REQUIRE(branch);
      REQUIRE(branch->named);
      keep_up();
      disk.allowed.blocks = latest(std::move(disk.allowed.blocks));
      disks[name].allowed.is_there = Allowed::Presence::yes;
      disks[name].overlay = std::move(branch->overlay);
      continue;
    }
    const std::uint64_t first = below(kBlocks);
    const std::uint64_t count = 1 + below(std::min<std::uint64_t>(kBlocks - first, 6));
    const std::uint64_t kind = below(6);
    if (kind == 0) {
      // Until it has succeeded everything since the last one is possible.
      REQUIRE(disk.overlay->flush());
      keep_up();
      disk.allowed.blocks = latest(std::move(disk.allowed.blocks));
      continue;
    }
    const int value = kind <= 3 ? step : 0;
    for (std::uint64_t block = first; block < first + count; ++block) {
      disk.allowed.blocks[block].push_back(value);
    }
    if (kind <= 3) {
      REQUIRE(disk.overlay->write(first * kBlock, filled(count * kBlock, value)));
    } else {
      REQUIRE(disk.overlay->zero({first * kBlock, count * kBlock}, kind == 4));
    }
    keep_up();
  }
  for (auto& [name, disk] : disks) disk.overlay.reset();
  keep_up();

  int finished = 0;
  int undone = 0;
  for (std::size_t end = begin; end < operations.changes.size(); ++end) {
    for (const Crash::Kind kind : {Crash::Kind::process, Crash::Kind::host, Crash::Kind::torn}) {
      CAPTURE(end, static_cast<int>(kind));
      const TempDir crashed(fast_place());
      Crash(operations.changes, end, kind, random).make(crashed.path());
      std::map<std::string, Bytes> found;
      for (const auto& [name, allowed] : allowed_after[end]) {
        CAPTURE(name);
        const std::string path = (crashed / name).string();
        REQUIRE(recover_overlay(path));
        const bool is_there = std::filesystem::exists(path);
        if (allowed.is_there == Allowed::Presence::yes) REQUIRE(is_there);
        if (allowed.is_there == Allowed::Presence::maybe) ++(is_there ? finished : undone);
        if (!is_there) continue;
        const auto overlay = open_overlay(path, kSize);
        REQUIRE(overlay);
        found[name] = read_all(**overlay);
        REQUIRE(is_allowed(found[name], allowed.blocks, kind == Crash::Kind::torn));
        // What is written then stays apart from all others.
        REQUIRE((*overlay)->write(0, filled(kBlock, 0xee)));
        REQUIRE((*overlay)->flush());
      }
      for (const std::string& name : names_in(crashed.path())) {
        CAPTURE(name);
        CHECK(overlay_of_unfinished_path(name).empty());
      }
      // Nothing is in the way of what comes then: each can be frozen, and be found again.
      if (below(4) != 0) continue;
      for (auto& [name, bytes] : found) {
        std::fill_n(bytes.begin(), kBlock, std::byte{0xee});
        const std::string path = (crashed / name).string();
        {
          const auto overlay = open_overlay(path, kSize);
          REQUIRE(overlay);
          const auto branch = (*overlay)->branch((crashed / (name + "-next")).string(), "");
          REQUIRE(branch);
          REQUIRE(read_all(*branch->overlay) == bytes);
        }
        REQUIRE(OverlayFile::check(path));
        const auto overlay = open_overlay(path, kSize);
        REQUIRE(overlay);
        REQUIRE(read_all(**overlay) == bytes);
      }
    }
  }
  CHECK(finished > 0);
  CHECK(undone > 0);
}

TEST_CASE("whatever call fails, what was flushed stays, and the failure is reported") {
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

TEST_CASE("a flush that fails for lack of space says so, and the next one makes up for it") {
  const TempDir dir(fast_place());
  int out_of_space = 0;
  for (int call = 0; call < 12; ++call) {
    CAPTURE(call);
    const std::string path = (dir / std::to_string(call)).string();
    FailingOperations operations(1 << 20, ENOSPC);
    {
      const auto overlay = open_overlay(path, 1U << 20, operations);
      REQUIRE(overlay);
      REQUIRE((*overlay)->write(0, filled(4 * kBlock, 1)));
      operations.fail_at(call);
      const Result<void> flushed = (*overlay)->flush();
      if (operations.has_failed()) {
        REQUIRE_FALSE(flushed);
        CHECK((flushed.error().code == Errc::no_space || flushed.error().os_errno == ENOSPC));
        ++out_of_space;
        // But for a sync, after which nobody knows what is on the disk.
        if (flushed.error().code == Errc::no_space) CHECK((*overlay)->flush());
      }
    }
    const auto again = open_overlay(path, 1U << 20);
    REQUIRE(again);
  }
  CHECK(out_of_space >= 3);
}

TEST_CASE("whatever call of a snapshot fails, it is undone or stands, and nothing is lost",
          "[one-thread]") {
  bool is_through = false;
  for (int call = 0; !is_through; ++call) {
    for (const int error : {EIO, ENOSPC, 0}) {
      CAPTURE(error, call);
      const TempDir dir(fast_place());
      const std::string path = (dir / "first").string();
      const std::string child = (dir / "child").string();
      const std::uint64_t size = 1U << 20;
      FailingOperations operations(1 << 20, error);
      bool is_done = false;
      bool is_flushed = false;
      {
        const auto overlay = open_overlay(path, size, operations);
        REQUIRE(overlay);
        REQUIRE((*overlay)->branch((dir / "before").string(), ""));
        REQUIRE((*overlay)->write(0, filled(4 * kBlock, 1)));
        REQUIRE((*overlay)->flush());
        REQUIRE((*overlay)->write(0, filled(2 * kBlock, 2)));
        operations.fail_at(call);
        const auto branch = (*overlay)->branch(child, "");
        is_through = !operations.has_failed();
        operations.fail_at(1 << 20);
        is_done = branch.has_value();
        if (is_through || error == 0) REQUIRE((is_done && branch->named));
        if (is_done && !branch->named) CHECK(!branch->named.error().what.empty());
        if (is_done) {
          REQUIRE(branch->overlay->write(8 * kBlock, filled(kBlock, 4)));
          REQUIRE(branch->overlay->flush());
        }
        // It goes on as before, or says that it does not.
        REQUIRE((*overlay)->write(kBlock, filled(kBlock, 3)));
        is_flushed = (*overlay)->flush().has_value();
        if (!is_flushed) CHECK(error != 0);
        if (is_flushed && !is_done) {
          // And can be frozen the next time.
          const auto again = (*overlay)->branch(child, "");
          REQUIRE(again);
          REQUIRE(again->named);
        }
      }
      REQUIRE(recover_overlay(child));
      for (const std::string& name : {path, child}) {
        CAPTURE(name);
        if (name == child && !std::filesystem::exists(child)) {
          CHECK_FALSE(is_done);
          continue;
        }
        const auto overlay = open_overlay(name, size);
        REQUIRE(overlay);
        const Bytes got = read_all(**overlay);
        const auto block = [&](std::size_t number) {
          return static_cast<int>(got[number * kBlock]);
        };
        CHECK(block(2) == 1);
        CHECK(block(20) == 0xbb);
        if (is_done) {
          CHECK(block(0) == 2);
          CHECK(block(1) == (name == child ? 2 : 3));
          CHECK(block(8) == (name == child ? 4 : 0xbb));
        } else if (is_flushed) {
          CHECK(block(0) == 2);
          CHECK(block(1) == 3);
        }
      }
      REQUIRE(open_overlay((dir / "before").string(), size));
      for (const std::string& name : names_in(dir.path())) {
        CAPTURE(name);
        CHECK(overlay_of_unfinished_path(name).empty());
      }
    }
  }
}

namespace {

/// Stores a base manifest for a new overlay, as `serve` does.
OverlayFile::BaseCheck store_base(const std::string& path, FileOperations& operations) {
  return [path, &operations](const OverlayHeader* found) -> Result<void> {
    if (found != nullptr) return {};
    auto writer =
        BaseManifestWriter::create(path, BaseHead{id_of(1), {}, {{"t", "", "/t"}}}, operations);
    if (!writer) return propagate(writer);
    BaseEntry entry;
    entry.path = "file";
    if (Result<void> added = (*writer)->add(entry); !added) return added;
    return (*writer)->finish();
  };
}

/// Whether the overlay has a base manifest that is whole.
bool has_base(const std::string& path) {
  const auto reader = BaseManifestReader::open(path);
  if (!reader || !*reader) return false;
  BaseEntry entry;
  Result<bool> got = (*reader)->next(entry);
  if (got && *got) got = (*reader)->next(entry);
  return got && !*got && entry.path == "file";
}

/// Whether an overlay is there, with a header on the disk.
bool has_header(const std::string& path) {
  const auto header = overlay_header_at(path);
  return header && *header;
}

}  // namespace

TEST_CASE(
    "an overlay has its base manifest at whatever instant a crash comes, and so has a child") {
  const auto seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  constexpr std::uint64_t kSize = 8 * kBlock;
  const TempDir dir(fast_place());
  RecordingOperations operations;
  {
    const std::string path = (dir / "first").string();
    auto file = OverlayFile::open(path, kSize, id_of(1), operations, store_base(path, operations));
    REQUIRE(file);
    Overlay overlay(std::make_shared<Base>(kSize, 0xbb), std::move(*file), Overlay::Options());
    REQUIRE(overlay.write(0, filled(kBlock, 1)));
    REQUIRE(overlay.flush());
    const auto branch = overlay.branch((dir / "child").string(), "");
    REQUIRE(branch);
    REQUIRE(branch->named);
    REQUIRE(branch->overlay->write(0, filled(kBlock, 2)));
  }
  int without = 0;
  int with = 0;
  int children = 0;
  for (std::size_t end = 0; end < operations.changes.size(); ++end) {
    for (const Crash::Kind kind : {Crash::Kind::process, Crash::Kind::host, Crash::Kind::torn}) {
      CAPTURE(end, static_cast<int>(kind));
      const TempDir crashed(fast_place());
      Crash(operations.changes, end, kind, random).make(crashed.path());
      for (const char* const name : {"first", "child"}) {
        CAPTURE(name);
        const std::string path = (crashed / name).string();
        REQUIRE(recover_overlay(path));
        if (has_header(path)) REQUIRE(has_base(path));
        ++(has_header(path) ? with : without);
        if (name == std::string("child")) {
          // A child that was undone leaves none.
          if (!has_header(path) && kind == Crash::Kind::process && has_header(path + ".~new~")) {
            CHECK_FALSE(has_base(path));
          }
          children += has_header(path) ? 1 : 0;
          continue;
        }
        // What was cut off is begun anew, with a manifest.
        const auto again = OverlayFile::open(path, kSize, id_of(1), FileOperations::host(),
                                             store_base(path, FileOperations::host()));
        if (!again && kind == Crash::Kind::torn) {
          // A first header that is torn looks like that of a damaged overlay with data in it.
          CHECK(again.error().what.ends_with("its header is damaged"));
          continue;
        }
        REQUIRE(again);
        CHECK(has_base(path));
        CHECK_FALSE(std::filesystem::exists(path + ".base.~new~"));
      }
    }
  }
  CHECK(without > 0);
  CHECK(with > 0);
  CHECK(children > 0);
}

TEST_CASE(
    "whatever call fails while an overlay is made, it has its base manifest or is not there") {
  bool is_through = false;
  for (int call = 0; !is_through; ++call) {
    for (const int error : {EIO, ENOSPC, 0}) {
      CAPTURE(error, call);
      const TempDir dir(fast_place());
      const std::string path = (dir / "first").string();
      FailingOperations operations(call, error);
      {
        const auto file =
            OverlayFile::open(path, 1U << 20, id_of(1), operations, store_base(path, operations));
        is_through = !operations.has_failed();
        CHECK(file.has_value() == (is_through || error == 0));
        // What failed is named: the file, or its directory.
        if (!file) CHECK(file.error().what.find(dir.path().string()) != std::string::npos);
      }
      if (has_header(path)) CHECK(has_base(path));
      {
        const auto again = OverlayFile::open(path, 1U << 20, id_of(1), FileOperations::host(),
                                             store_base(path, FileOperations::host()));
        REQUIRE(again);
        CHECK(has_base(path));
      }
      REQUIRE(OverlayFile::remove(path));
      CHECK(names_in(dir.path()).empty());
    }
  }
}

TEST_CASE("each child of a snapshot has a base manifest of its own, and discarding removes it") {
  const TempDir dir;
  const std::string path = (dir / "one").string();
  const std::string child = (dir / "two").string();
  auto file = OverlayFile::open(path, 1U << 20, id_of(1), FileOperations::host(),
                                store_base(path, FileOperations::host()));
  REQUIRE(file);
  Overlay overlay(std::make_shared<Base>(1U << 20, 0xbb), std::move(*file), Overlay::Options());
  REQUIRE(overlay.branch(child, ""));
  CHECK(has_base(path));
  CHECK(has_base(child));
  REQUIRE(OverlayFile::remove(child));
  CHECK_FALSE(has_base(child));
  CHECK(has_base(path));
  // What is not ours stays, and is in the way of a child.
  write_file(child + ".base", "precious");
  CHECK_FALSE(overlay.branch(child, ""));
  CHECK(read_file(child + ".base") == "precious");
}

TEST_CASE("an overlay opened to be read alone is not changed, whatever it lies over") {
  const TempDir dir;
  const std::string path = (dir / "overlay").string();
  const std::uint64_t size = 8 * kBlock;
  {
    const auto overlay = open_overlay(path, size);
    REQUIRE(overlay);
    REQUIRE((*overlay)->write(0, filled(kBlock, 1)));
    REQUIRE((*overlay)->branch((dir / "child").string(), ""));
    REQUIRE((*overlay)->write(2 * kBlock, filled(kBlock, 2)));
  }
  const std::string before = read_file(path);
  for (const std::uint64_t base_size : {size, 3 * kBlock, 20 * kBlock}) {
    CAPTURE(base_size);
    auto file = OverlayFile::open_read_only(path);
    REQUIRE(file);
    std::shared_ptr<BlockDevice> base = std::make_shared<Base>(base_size, 0xcc);
    Overlay::Options options;
    options.read_only = true;
    Overlay overlay(std::make_shared<ResizedDevice>(base, size), std::move(*file), options);
    CHECK_FALSE(overlay.geometry().writable);
    const Bytes bytes = read_all(overlay);
    CHECK(bytes[0] == std::byte{1});
    CHECK(bytes[kBlock] == std::byte{0xcc});
    CHECK(bytes[2 * kBlock] == std::byte{2});
    CHECK(bytes[7 * kBlock] == (base_size < size ? std::byte{0} : std::byte{0xcc}));
    std::uint64_t at = 0;
    for_each_extent(overlay, {0, size}, [&](const Extent& extent) {
      CHECK(extent.offset == at);
      at = extent.end();
      return true;
    });
    CHECK(at == size);
    REQUIRE(overlay.flush());
    CHECK_FALSE(overlay.branch((dir / "grandchild").string(), ""));
    // Others may read it, too, and nobody may write.
    CHECK(OverlayFile::open_read_only(path));
    CHECK_FALSE(open_overlay(path, size));
  }
  CHECK(read_file(path) == before);
}

TEST_CASE("snapshots are found again, several layers deep, each with files of its own") {
  const TempDir dir;
  const std::uint64_t size = 100 * kBlock;
  const auto path = [&](const std::string& name) { return (dir / name).string(); };
  const auto first_bytes = [&](const std::string& name) {
    const auto overlay = open_overlay(path(name), size);
    REQUIRE(overlay);
    const Bytes bytes = read_all(**overlay);
    return std::vector<int>{static_cast<int>(bytes[0]), static_cast<int>(bytes[kBlock]),
                            static_cast<int>(bytes[2 * kBlock])};
  };
  {
    const auto one = open_overlay(path("one"), size);
    REQUIRE(one);
    REQUIRE((*one)->write(0, filled(3 * kBlock, 1)));
    const auto two = (*one)->branch(path("two"), "here");
    REQUIRE(two);
    REQUIRE(two->named);
    REQUIRE((*one)->write(0, filled(kBlock, 10)));
    REQUIRE(two->overlay->write(0, filled(kBlock, 2)));
    CHECK((*one)->used_bytes() == 4 * kBlock);
    CHECK(two->overlay->used_bytes() == kBlock);
    CHECK(two->overlay->geometry().overlays == 2);
    const auto three = two->overlay->branch(path("three"), "here");
    REQUIRE(three);
    REQUIRE(three->overlay->write(kBlock, filled(kBlock, 3)));
    REQUIRE(two->overlay->write(2 * kBlock, filled(kBlock, 20)));
    CHECK_FALSE((*one)->branch(path("three"), ""));
    CHECK_FALSE((*one)->branch(path("missing/three"), ""));
    CHECK_FALSE((*one)->branch(path("four"), std::string(256, 'x')));
    auto store = OverlayStore::in_memory(size);
    REQUIRE(store);
    CHECK_FALSE((*one)->snapshot(std::move(*store)));
    CHECK((*one)->geometry().overlays == 1);
  }
  CHECK(names_in(dir.path()) == std::vector<std::string>{"one", "one.~1~", "three", "three.~1~",
                                                         "three.~2~", "two", "two.~1~", "two.~2~"});
  CHECK(first_bytes("one") == std::vector<int>{10, 1, 1});
  CHECK(first_bytes("two") == std::vector<int>{2, 1, 20});
  CHECK(first_bytes("three") == std::vector<int>{2, 3, 1});
  {
    const auto one = open_overlay(path("one"), size);
    const auto three = open_overlay(path("three"), size);
    REQUIRE(one);
    REQUIRE(three);
    CHECK((*one)->used_bytes() == 4 * kBlock);
    CHECK((*three)->used_bytes() == kBlock);
    CHECK((*three)->geometry().overlays == 3);
  }
  const auto facts = OverlayFile::check(path("three"));
  REQUIRE(facts);
  CHECK(facts->header.version() == 2);
  CHECK(facts->header.layer == 3);
  CHECK(facts->header.own_from == 3);
  CHECK(facts->header.origin == "here");
  CHECK_FALSE(facts->header.is_frozen());
  REQUIRE(facts->below.size() == 2);
  CHECK(facts->below[0].path == path("three.~2~"));
  CHECK(facts->below[0].written_blocks == 1);
  CHECK(facts->below[0].header.is_frozen());
  CHECK(facts->below[1].written_blocks == 3);
  // A layer can be looked at, and not be written.
  REQUIRE(OverlayFile::check(path("three.~2~")));
  CHECK(OverlayFile::check(path("three.~2~"))->below.size() == 1);
  const auto frozen = open_overlay(path("three.~2~"), size);
  REQUIRE_FALSE(frozen);
  CHECK(frozen.error().code == Errc::usage);
  CHECK(frozen.error().what.find("frozen") != std::string::npos);

  // What is removed takes nothing from the others, and nothing of it stays.
  REQUIRE(OverlayFile::remove(path("one")));
  REQUIRE(OverlayFile::remove(path("two")));
  REQUIRE(OverlayFile::remove(path("two")));
  CHECK(names_in(dir.path()) == std::vector<std::string>{"three", "three.~1~", "three.~2~"});
  CHECK(first_bytes("three") == std::vector<int>{2, 3, 1});
}

TEST_CASE("as many layers as are allowed, and not one more") {
  const TempDir dir;
  const std::string path = (dir / "overlay").string();
  {
    const auto overlay = open_overlay(path, 1U << 20);
    REQUIRE(overlay);
    for (int layer = 1; layer < Overlay::kMostLayers; ++layer) {
      REQUIRE((*overlay)->write(static_cast<std::uint64_t>(layer) * kBlock, filled(kBlock, layer)));
      REQUIRE((*overlay)->branch((dir / ("child-" + std::to_string(layer))).string(), ""));
    }
    const auto refused = (*overlay)->branch((dir / "child").string(), "");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().what.find("16 layers already") != std::string::npos);
  }
  const auto overlay = open_overlay(path, 1U << 20);
  REQUIRE(overlay);
  CHECK((*overlay)->geometry().overlays == Overlay::kMostLayers);
  const Bytes bytes = read_all(**overlay);
  for (int layer = 1; layer < Overlay::kMostLayers; ++layer) {
    CHECK(static_cast<int>(bytes[static_cast<std::size_t>(layer) * kBlock]) == layer);
  }
}

TEST_CASE("an overlay whose layers below are not those it was made over is refused with a reason") {
  const TempDir dir;
  const std::uint64_t size = 1U << 20;
  const std::string path = (dir / "overlay").string();
  const std::string one = path + ".~1~";
  const std::string two = path + ".~2~";
  {
    const auto overlay = open_overlay(path, size);
    REQUIRE(overlay);
    REQUIRE((*overlay)->write(0, filled(kBlock, 1)));
    REQUIRE((*overlay)->branch((dir / "child").string(), ""));
    REQUIRE((*overlay)->branch((dir / "grandchild").string(), ""));
  }
  const auto reason = [&] {
    const auto checked = OverlayFile::check(path);
    const auto opened = open_overlay(path, size);
    REQUIRE_FALSE(checked);
    REQUIRE_FALSE(opened);
    CHECK(checked.error().what == opened.error().what);
    return checked.error().what;
  };
  /// Puts another header there, which the journal does not replace.
  const auto put_header = [](const std::string& file, const OverlayHeader& header) {
    const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
    const OverlayPage page = header.page();
    REQUIRE(::pwrite(fd.get(), page.data(), page.size(), 0) == std::ssize(page));
    REQUIRE(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096) == 0);
  };
  const auto header = [](const std::string& file) {
    const auto found = overlay_header_at(file);
    REQUIRE(found);
    REQUIRE(*found);
    return **found;
  };
  REQUIRE(OverlayFile::check(path));
  SECTION("gone") {
    std::filesystem::remove(one);
    CHECK(reason() == path + ": the layer that it lies over is gone: " + one);
  }
  SECTION("another") {
    std::filesystem::remove(one);
    {
      const auto other = open_overlay((dir / "other").string(), size);
      REQUIRE(other);
      REQUIRE((*other)->branch((dir / "other-child").string(), ""));
    }
    std::filesystem::rename(dir / "other.~1~", one);
    CHECK(reason() == one + ": it is another layer than the one that layer 2 was made over");
  }
  SECTION("its own child: a circle") {
    std::filesystem::remove(one);
    std::filesystem::create_hard_link(two, one);
    CHECK(reason() == one + ": it is another layer than the one that layer 2 was made over");
  }
  SECTION("not frozen") {
    OverlayHeader changed = header(two);
    changed.id = {};
    put_header(two, changed);
    CHECK(reason() == two + ": it lies below another, and is not frozen: it may have changed");
  }
  SECTION("over another image") {
    OverlayHeader changed = header(one);
    changed.base = id_of(7);
    put_header(one, changed);
    CHECK(reason() == one + ": it is another layer than the one that layer 2 was made over");
  }
  SECTION("cut off") {
    REQUIRE(::truncate(one.c_str(), 3'000'000) == 0);
    CHECK(reason().starts_with(one + ": it has 3000000 bytes of"));
  }
  SECTION("damaged in its map") {
    const UniqueFd fd(::open(one.c_str(), O_WRONLY | O_CLOEXEC));
    REQUIRE(::pwrite(fd.get(), "x", 1, 3 * 4096 + 100) == 1);
    CHECK(reason() == one + ": page 0 of its map is damaged");
  }
  SECTION("with a header that no program of ours would write") {
    const auto damage = [&](const std::function<void(OverlayPage&)>& change) {
      OverlayPage page = header(path).page();
      change(page);
      seal_overlay_page(page, kOverlayHeaderMagic);
      const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
      REQUIRE(::pwrite(fd.get(), page.data(), page.size(), 0) == std::ssize(page));
      CHECK(reason() == path + ": its header is damaged");
    };
    const OverlayHeader right = header(path);
    damage([](OverlayPage& page) { page[56] = std::byte{0}; });
    put_header(path, right);
    damage([](OverlayPage& page) { page[56] = std::byte{17}; });
    put_header(path, right);
    damage([](OverlayPage& page) { page[57] = std::byte{1}; });
    put_header(path, right);
    damage([](OverlayPage& page) { page[60] = std::byte{4}; });
    put_header(path, right);
    damage([](OverlayPage& page) { page[60] = std::byte{0}; });
    put_header(path, right);
    damage([](OverlayPage& page) { page[97] = std::byte{1}; });
    put_header(path, right);
    damage([](OverlayPage& page) { std::fill_n(page.begin() + 80, 16, std::byte{0}); });
    put_header(path, right);
    REQUIRE(open_overlay(path, size));
  }
}

TEST_CASE("a file of version 1 opens, and stays of that version until its first snapshot") {
  const TempDir dir;
  const std::string path = (dir / "overlay").string();
  const std::uint64_t size = 8 * kBlock;
  {
    // As docs/layout-overlay.md has it: one block is here, the next is zeroes.
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(::ftruncate(fd.get(), (2 << 20) + 8 * 4096) == 0);
    const auto put = [&](std::uint64_t offset, const Bytes& bytes) {
      REQUIRE(::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
              std::ssize(bytes));
    };
    const auto put_page = [&](std::uint64_t offset, std::string_view front, int fill, int count) {
      Bytes page(4096);
      std::ranges::copy(std::as_bytes(std::span(front)), page.begin());
      std::fill_n(page.begin() + 24, count, static_cast<std::byte>(fill));
      if (count == 0) page[64] = std::byte{0b1001};
      Sha256 sha;
      sha.update(std::span(page).first(4080));
      std::copy_n(sha.finish().begin(), 16, page.begin() + 4080);
      put(offset, page);
    };
    put_page(0, std::string_view("MKVOVL\r\n\1\0\0\0\0\x10\0\0\0\x80\0\0\0\0\0\0", 24), 1, 32);
    put_page(3 * 4096, std::string_view("MKVMAP\r\n\0\0\0\0\0\0\0\0", 16), 0, 0);
    put(2 << 20, filled(kBlock, 5));
  }
  const auto before = OverlayFile::check(path);
  REQUIRE(before);
  CHECK(before->header.version() == 1);
  CHECK(before->written_blocks == 1);
  CHECK(before->zero_blocks == 1);
  const std::string header = read_file(path).substr(0, 4096);
  Bytes expected = filled(size, 0xbb);
  std::fill_n(expected.begin(), kBlock, std::byte{5});
  std::fill_n(expected.begin() + kBlock, kBlock, std::byte{0});
  {
    const auto overlay = open_overlay(path, size);
    REQUIRE(overlay);
    CHECK(read_all(**overlay) == expected);
    REQUIRE((*overlay)->write(2 * kBlock, filled(kBlock, 6)));
  }
  CHECK(read_file(path).substr(0, 4096) == header);
  std::fill_n(expected.begin() + 2 * kBlock, kBlock, std::byte{6});
  const std::string child = (dir / "child").string();
  {
    const auto overlay = open_overlay(path, size);
    REQUIRE(overlay);
    REQUIRE((*overlay)->branch(child, ""));
  }
  for (const std::string& name : {path, child}) {
    const auto facts = OverlayFile::check(name);
    REQUIRE(facts);
    CHECK(facts->header.version() == 2);
    const auto overlay = open_overlay(name, size);
    REQUIRE(overlay);
    CHECK(read_all(**overlay) == expected);
  }
  // A fresh one is written the same way.
  REQUIRE(open_overlay((dir / "fresh").string(), size));
  CHECK(read_file(dir / "fresh").substr(0, 4096) == header);
}

TEST_CASE("names of layers differ from all others") {
  CHECK(overlay_layer_path("a/disk", 3) == "a/disk.~3~");
  CHECK(overlay_of_layer_path("a/disk.~3~") == "a/disk");
  CHECK(overlay_of_layer_path("disk.~2~.~16~") == "disk.~2~");
  for (const char* const name :
       {"", "disk", ".~~", "disk.~0~", "disk.~17~", "disk.~03~", "disk.~3", "disk.~-1~",
        "disk.~3~x", "disk.~3~~", "disk.~new~", "disk~3~", "disk.~99999999999~"}) {
    CAPTURE(name);
    CHECK(overlay_of_layer_path(name).empty());
  }
  CHECK(overlay_of_unfinished_path(unfinished_overlay_path("a/disk")) == "a/disk");
  CHECK(overlay_of_unfinished_path("disk.~1~").empty());
}

TEST_CASE("an overlay may be used beside others over the same layers, and not be made twice") {
  const TempDir dir;
  const std::uint64_t size = 1U << 20;
  const auto one = open_overlay((dir / "one").string(), size);
  REQUIRE(one);
  REQUIRE((*one)->branch((dir / "two").string(), ""));
  // While the server that froze the layer still goes on.
  const auto two = open_overlay((dir / "two").string(), size);
  REQUIRE(two);
  const auto twice = open_overlay((dir / "two").string(), size);
  REQUIRE_FALSE(twice);
  CHECK(twice.error().what.find("in use") != std::string::npos);
  // A file that was moved away under its server is not frozen under a name that is another's.
  std::filesystem::rename(dir / "two", dir / "elsewhere");
  const auto moved = (*two)->branch((dir / "three").string(), "");
  REQUIRE_FALSE(moved);
  CHECK(moved.error().what.find("moved") != std::string::npos);
  // What has no other name is not removed for a snapshot.
  write_file(dir / "one.~2~", "precious");
  CHECK_FALSE((*one)->branch((dir / "three").string(), ""));
  CHECK(read_file(dir / "one.~2~") == "precious");
  std::filesystem::remove(dir / "one.~2~");
  REQUIRE((*one)->branch((dir / "three").string(), ""));
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

namespace {

/// Calls a function before each flush of a file.
class HookedOperations final : public FileOperations {
 public:
  std::function<void()> before_sync;
  int fdatasync(int fd) override {
    if (before_sync) before_sync();
    return FileOperations::fdatasync(fd);
  }
};

}  // namespace

TEST_CASE("flushes that wait for another share the next one") {
  const TempDir dir(fast_place());
  HookedOperations operations;
  const std::string path = (dir / "disk").string();
  const auto overlay = open_overlay(path, 1 << 20, operations);
  REQUIRE(overlay);
  constexpr int kOthers = 8;
  std::vector<std::thread> others;
  std::atomic<int> begun = 0;
  std::atomic<int> succeeded = 0;
  int syncs = 0;
  operations.before_sync = [&] {
    if (++syncs != 1) return;
    for (int i = 0; i < kOthers; ++i) {
      others.emplace_back([&, i] {
        const bool written =
            (*overlay)
                ->write(static_cast<std::uint64_t>(i + 1) * kBlock, filled(kBlock, i + 1))
                .has_value();
        ++begun;
        if (written && (*overlay)->flush()) ++succeeded;
      });
    }
    // They are about to wait. One that is late has a flush of its own: two syncs more, no failure.
    while (begun < kOthers) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  };
  REQUIRE((*overlay)->write(0, filled(kBlock, 0xee)));
  REQUIRE((*overlay)->flush());
  for (std::thread& other : others) other.join();
  CHECK(succeeded == kOthers);
  CHECK(syncs < 2 * (1 + kOthers));
  operations.before_sync = nullptr;

  // What was flushed is in the file as another program finds it.
  std::filesystem::copy_file(path, dir / "copy");
  const auto again = open_overlay((dir / "copy").string(), 1 << 20);
  REQUIRE(again);
  for (int i = 0; i < kOthers; ++i) {
    Bytes block(kBlock);
    REQUIRE((*again)->read(static_cast<std::uint64_t>(i + 1) * kBlock, block));
    CHECK(block == filled(kBlock, i + 1));
  }
}

TEST_CASE("a flush that others share fails for all of them") {
  const TempDir dir(fast_place());
  class Failing final : public FileOperations {
   public:
    std::function<int(int fd)> sync;
    int fdatasync(int fd) override { return sync ? sync(fd) : FileOperations::fdatasync(fd); }
  } operations;
  const auto overlay = open_overlay((dir / "disk").string(), 1 << 20, operations);
  REQUIRE(overlay);
  std::vector<std::thread> others;
  std::atomic<int> begun = 0;
  std::atomic<int> failed = 0;
  bool is_first = true;
  operations.sync = [&](int fd) {
    if (!std::exchange(is_first, false)) {
      errno = EIO;
      return -1;
    }
    for (int i = 0; i < 4; ++i) {
      others.emplace_back([&] {
        ++begun;
        if (!(*overlay)->flush()) ++failed;
      });
    }
    while (begun < 4) std::this_thread::yield();
    return ::fdatasync(fd);
  };
  REQUIRE((*overlay)->flush());
  for (std::thread& other : others) other.join();
  CHECK(failed == 4);
  operations.sync = nullptr;
}

TEST_CASE("while a snapshot holds up writers they are known to wait", "[point6]") {
  const TempDir dir(fast_place());
  HookedOperations operations;
  const auto overlay = open_overlay((dir / "disk").string(), 1 << 20, operations);
  REQUIRE(overlay);
  const auto waits = [&] { return (*overlay)->may_wait(DeviceCall::write, {0, kBlock}); };
  REQUIRE((*overlay)->write(0, filled(kBlock, 1)));
  CHECK_FALSE(waits());
  bool was_known = false;
  operations.before_sync = [&] { was_known = was_known || waits(); };
  REQUIRE((*overlay)->branch((dir / "next").string(), ""));
  operations.before_sync = nullptr;  // closing the overlay syncs, too
  CHECK(was_known);
  CHECK_FALSE(waits());
}

}  // namespace mkvirtfs
