// SPDX-License-Identifier: BSD-3-Clause
#include "block/page_cache.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>

#include <array>
#include <catch2/catch.hpp>
#include <string>

#include "block/host_files.h"
#include "block/testing/deaf_file_system.h"
#include "block/testing/directory_table.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

std::span<std::byte> bytes_of(std::string& text) { return std::as_writable_bytes(std::span(text)); }

UniqueFd open_file(const std::filesystem::path& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

constexpr std::array<long, 4> kFileSystemsThatWait = {FUSE_SUPER_MAGIC, NFS_SUPER_MAGIC, V9FS_MAGIC,
                                                      OVERLAYFS_SUPER_MAGIC};
constexpr std::array<long, 2> kFileSystemsInMemory = {TMPFS_MAGIC, RAMFS_MAGIC};

}  // namespace

TEST_CASE("a file system without RWF_NOWAIT is one whose reads may wait") {
  const TempDir dir;
  write_file(dir / "a", "0123456789");
  write_file(dir / "b", "abcdefghij");
  for (const long magic : kFileSystemsThatWait) {
    CAPTURE(magic);
    testing::DeafFileSystem files(magic);
    HostReader reader(files);
    const UniqueFd a = open_file(dir / "a");
    const UniqueFd b = open_file(dir / "b");
    HostReader::Memo memo_a;
    HostReader::Memo memo_b;
    std::string text(4, '?');
    CHECK(memo_a.waits() == FileWaits::unknown);
    CHECK_FALSE(reader.has_waiting_device());
    for (int i = 0; i < 5; ++i) {
      CHECK(reader.read_at_once(a.get(), memo_a, 2, bytes_of(text)) ==
            HostReader::AtOnce::would_wait);
      CHECK_FALSE(reader.is_at_hand(a.get(), memo_a, {0, 10}));
      CHECK_FALSE(reader.keeps_fetched(a.get(), memo_a));
    }
    CHECK(memo_a.waits() == FileWaits::possible);
    CHECK(reader.has_waiting_device());
    CHECK_FALSE(reader.keeps_fetched(b.get(), memo_b));
    // What was learned is remembered: of a file, and of its device.
    CHECK(files.nowait_reads == 2);
    CHECK(files.type_questions == 1);
    CHECK(files.plain_reads == 0);
    // Of nothing there is nothing to wait for.
    CHECK(reader.read_at_once(a.get(), memo_a, 2, {}) == HostReader::AtOnce::done);
    CHECK(reader.is_at_hand(a.get(), memo_a, {0, 0}));
  }
}

TEST_CASE("tmpfs and ramfs never wait, with RWF_NOWAIT or without") {
  const TempDir dir;
  write_file(dir / "a", "0123456789");
  for (const long magic : kFileSystemsInMemory) {
    CAPTURE(magic);
    testing::DeafFileSystem files(magic);
    HostReader reader(files);
    const UniqueFd a = open_file(dir / "a");
    HostReader::Memo memo;
    std::string text(4, '?');
    for (int i = 0; i < 5; ++i) {
      CHECK(reader.read_at_once(a.get(), memo, 2, bytes_of(text)) == HostReader::AtOnce::done);
      CHECK(text == "2345");
      CHECK(reader.is_at_hand(a.get(), memo, {0, 10}));
      CHECK(reader.keeps_fetched(a.get(), memo));
    }
    CHECK(memo.waits() == FileWaits::never);
    CHECK_FALSE(reader.has_waiting_device());
    // One question each, and then plain reads alone.
    CHECK(files.nowait_reads == 1);
    CHECK(files.type_questions == 1);
    CHECK(files.plain_reads == 5);
    // A file that ends there is none to wait for: the ordinary read says so.
    CHECK(reader.read_at_once(a.get(), memo, 8, bytes_of(text)) == HostReader::AtOnce::failed);
  }
}

TEST_CASE("a real file in the host's memory is read at once") {
  const UniqueFd file(::memfd_create("page-cache-test", MFD_CLOEXEC));
  REQUIRE(::pwrite(file.get(), "0123456789", 10, 0) == 10);
  HostReader reader;
  HostReader::Memo memo;
  std::string text(4, '?');
  CHECK(reader.is_at_hand(file.get(), memo, {0, 10}));
  CHECK(reader.read_at_once(file.get(), memo, 6, bytes_of(text)) == HostReader::AtOnce::done);
  CHECK(text == "6789");
  CHECK(reader.keeps_fetched(file.get(), memo));
  CHECK_FALSE(reader.has_waiting_device());
}

TEST_CASE("a store on a file system without RWF_NOWAIT leaves every read to a job") {
  const TempDir dir;
  write_file(dir / "a", "0123456789");
  write_file(dir / "b", "abcdefghij");
  auto table = std::make_shared<testing::DirectoryTable>(dir.path());
  const ContentNo a = table->add("a");
  const ContentNo b = table->add("b");
  testing::DeafFileSystem files(FUSE_SUPER_MAGIC);
  const auto store = make_host_files(table, OnChange::error, null_log(), 100, files);
  std::string text(4, '?');
  CHECK(store->read_at_once(a, 0, bytes_of(text)) == false);
  CHECK_FALSE(store->is_at_hand(a, 0, 10));
  CHECK(table->opened == 1);
  // To open another file may wait there, too: that is for the job.
  CHECK(store->read_at_once(b, 0, bytes_of(text)) == false);
  CHECK_FALSE(store->is_at_hand(b, 0, 10));
  CHECK(table->opened == 1);
  CHECK(files.plain_reads == 0);
  CHECK_FALSE(store->keeps_fetched(b));
  CHECK(table->opened == 2);
  REQUIRE(store->read(b, 2, bytes_of(text)));
  CHECK(text == "cdef");
}

}  // namespace mkvirtfs
