// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/host/source_sync.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <thread>
#include <vector>

#include "fsgen/host/scan.h"
#include "support/unique_fd.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

using namespace std::chrono_literals;

bool on_tmpfs(const std::string& path) {
  struct statfs facts;
  return ::statfs(path.c_str(), &facts) == 0 && facts.f_type == TMPFS_MAGIC;
}

Scan scan_synced(const std::string& path) {
  ScanOptions options;
  options.sync_within = 60s;
  Result<Scan> scanned = scan_directory(path, options, null_log());
  if (!scanned) FAIL(scanned.error().what);
  return std::move(*scanned);
}

/// One page of a file, mapped to be written.
class Mapping {
 public:
  explicit Mapping(const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    void* const at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    REQUIRE(at != MAP_FAILED);
    bytes_ = static_cast<volatile char*>(at);
  }
  ~Mapping() { ::munmap(const_cast<char*>(bytes_), 4096); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  void write(char byte) { bytes_[0] = byte; }

 private:
  volatile char* bytes_;
};

}  // namespace

TEST_CASE("a file system that is not written back in time is left behind at the deadline") {
  const UniqueFd directory(::open("/", O_RDONLY | O_CLOEXEC));
  const auto start = std::chrono::steady_clock::now();
  const auto late = sync_file_system(directory.get(), 50ms, [](int) { return ::pause(); });
  REQUIRE_FALSE(late);
  CHECK(late.error() == ETIMEDOUT);
  CHECK(std::chrono::steady_clock::now() - start < 30s);

  const auto failed = sync_file_system(directory.get(), 30s, [](int) {
    errno = EIO;
    return -1;
  });
  REQUIRE_FALSE(failed);
  CHECK(failed.error() == EIO);
  CHECK(sync_file_system(directory.get(), 30s, [](int) { return 0; }));
}

TEST_CASE("the child that syncs holds no other descriptor") {
  const UniqueFd directory(::open("/", O_RDONLY | O_CLOEXEC));
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const auto late = sync_file_system(directory.get(), 50ms, [](int) { return ::pause(); });
  REQUIRE_FALSE(late);
  writer.reset();
  char byte;
  CHECK(::read(reader.get(), &byte, 1) == 0);  // the end, for nobody can write any more
}

TEST_CASE("a file system is written back once, however many threads ask") {
  const TempDir dir;
  const UniqueFd directory(::open(dir.path().c_str(), O_RDONLY | O_CLOEXEC));
  SourceSync sync(60s);
  std::atomic<int> good = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] { good += sync.ensure(7, directory.get()) ? 1 : 0; });
    }
  }
  CHECK(good == 4);
  CHECK_FALSE(sync.error());
}

TEST_CASE(
    "with --sync-source a write through a mapping whose page was dirty before the scan is seen") {
  const TempDir dir;
  const std::string path = (dir / "mapped").string();
  if (on_tmpfs(dir.path().string())) {
    WARN("skipped: tmpfs does not set the times of files that are written through mappings");
    return;
  }
  write_file(path, std::string(4096, 'a'));
  Mapping mapping(path);
  mapping.write('b');  // the page is dirty, and writable for the mapping
  const Scan scanned = scan_synced(dir.path().string());
  struct stat before;
  REQUIRE(::stat(path.c_str(), &before) == 0);
  const Node& node = *scanned.tree->find_path("mapped");
  CHECK(node.mtime_s == before.st_mtim.tv_sec);
  CHECK(node.mtime_ns == before.st_mtim.tv_nsec);
  std::this_thread::sleep_for(50ms);  // beyond the granularity of the host's times
  mapping.write('c');
  struct stat after;
  REQUIRE(::stat(path.c_str(), &after) == 0);
  CHECK((after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
         after.st_mtim.tv_nsec != before.st_mtim.tv_nsec));
  CHECK(scanned.report.unsynced.empty());
}

TEST_CASE("a file system that --sync-source cannot serve is named: tmpfs") {
  if (!on_tmpfs("/dev/shm") || ::access("/dev/shm", W_OK) != 0) {
    WARN("skipped: /dev/shm is no tmpfs that can be written");
    return;
  }
  std::string path = "/dev/shm/mkvirtfs-test-XXXXXX";
  REQUIRE(::mkdtemp(path.data()) != nullptr);
  const Scan scanned = scan_synced(path);
  ::rmdir(path.c_str());
  REQUIRE(scanned.report.unsynced.size() == 1);
  CHECK_THAT(scanned.report.unsynced[0],
             Catch::Contains(path + " is on tmpfs") && Catch::Contains("through a mapping"));
}

}  // namespace mkvirtfs
