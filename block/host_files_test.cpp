// SPDX-License-Identifier: BSD-3-Clause
#include "block/host_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "block/testing/directory_table.h"
#include "support/mutex.h"
#include "tests/support/allocations.h"
#include "tests/support/collected_log.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

using mkvirtfs::testing::CollectedLog;

using testing::DirectoryTable;

std::span<std::byte> bytes_of(std::string& text) { return std::as_writable_bytes(std::span(text)); }

/// What a read answers: the bytes, or the error's text.
std::string read_text(ContentStore& store, ContentNo file, std::uint64_t offset,
                      std::size_t length) {
  std::string text(length, '?');
  const Result<void> result = store.read(file, offset, bytes_of(text));
  return result ? text : "error: " + result.error().what;
}

/// Kernels before 6.13 stamp files with a clock that stands still for up to 10 ms: a change right
/// after the scan would be invisible to everyone.
void let_the_clock_tick() { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }

int open_descriptors() {
  int count = 0;
  DIR* directory = ::opendir("/proc/self/fd");
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

constexpr std::string_view kScanned = "what the scan saw";

struct Change {
  const char* name;
  std::function<void(const std::filesystem::path&)> make;
  std::string_view there_now;  // the file's bytes afterwards, what OnChange::stale serves
};

const std::vector<Change>& changes() {
  static const std::vector<Change> all = {
      {"grown", [](const auto& path) { std::ofstream(path, std::ios::app) << ", and more"; },
       "what the scan saw, and more"},
      {"truncated", [](const auto& path) { std::filesystem::resize_file(path, 4); }, "what"},
      {"rewritten with the same size, mtime put back",
       [](const auto& path) {
         struct stat before;
         REQUIRE(::stat(path.c_str(), &before) == 0);
         write_file(path, "WHAT THE SCAN SAW");
         const timespec times[2] = {before.st_atim, before.st_mtim};
         REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
       },
       "WHAT THE SCAN SAW"},
      {"replaced",
       [](const auto& path) {
         const std::filesystem::path other = path.string() + ".new";
         write_file(other, "another file here");
         std::filesystem::rename(other, path);
       },
       "another file here"},
      {"deleted", [](const auto& path) { std::filesystem::remove(path); }, ""},
      {"replaced by a symbolic link",
       [](const auto& path) {
         std::filesystem::remove(path);
         std::filesystem::create_symlink("/etc/passwd", path);
       },
       ""},
      {"replaced by a directory",
       [](const auto& path) {
         std::filesystem::remove(path);
         std::filesystem::create_directory(path);
       },
       ""},
      {"replaced by a FIFO",
       [](const auto& path) {
         std::filesystem::remove(path);
         REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
       },
       ""},
  };
  return all;
}

}  // namespace

TEST_CASE("host files are read where they stand") {
  const TempDir dir;
  write_file(dir / "a", "0123456789");
  auto table = std::make_shared<DirectoryTable>(dir.path());
  const ContentNo a = table->add("a");
  const auto store = make_host_files(table, OnChange::error, null_log());

  CHECK(read_text(*store, a, 0, 10) == "0123456789");
  CHECK(read_text(*store, a, 7, 3) == "789");
  CHECK(read_text(*store, a, 10, 0).empty());
  CHECK(store->name(a) == "a");
  CHECK(table->opened == 1);
}

TEST_CASE("a read of an open file allocates nothing") {
  const TempDir dir;
  write_file(dir / "a", "0123456789");
  auto table = std::make_shared<DirectoryTable>(dir.path());
  const ContentNo a = table->add("a");
  const auto store = make_host_files(table, OnChange::error, null_log());
  std::string text(10, '?');
  REQUIRE(store->read(a, 0, bytes_of(text)));

  const std::size_t before = allocations_of_this_thread();
  bool good = true;
  for (int i = 0; i < 100; ++i) {
    good = good && store->read(a, 0, bytes_of(text));
    const Result<ContentStore::Pin> pin = store->pin(a);
    good = good && pin && store->recheck(a, pin->file);
  }
  CHECK(allocations_of_this_thread() == before);
  CHECK(good);
}

TEST_CASE("what is not in the page cache can be told, and fetched") {
  const TempDir directory;
  const std::string name = (directory / "file").native();
  constexpr std::size_t kBytes = 8U << 20;
  std::string text(kBytes, 'x');
  for (std::size_t i = 0; i < text.size(); i += 100) text[i] = static_cast<char>('a' + i % 23);
  {
    const UniqueFd file(::open(name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(::pwrite(file.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(kBytes));
    REQUIRE(::fsync(file.get()) == 0);
    // Advice, which some file systems take and others do not.
    ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  }
  CollectedLog log;
  const auto table = std::make_shared<DirectoryTable>(directory.path());
  REQUIRE(table->add("file") == ContentNo{0});
  const auto store = make_host_files(table, OnChange::error, log);
  const auto read_at_once = [&](std::uint64_t offset, std::size_t length) {
    std::string out(length, '?');
    const Result<bool> result = store->read_at_once(ContentNo{0}, offset, bytes_of(out));
    REQUIRE(result);
    // Either way nobody reads anything wrong.
    if (*result) CHECK(out == text.substr(offset, length));
    return *result;
  };
  read_at_once(4U << 20, 10'000);
  store->fetch(ContentNo{0}, 0, kBytes);
  CHECK(store->is_at_hand(ContentNo{0}, 0, kBytes));
  CHECK(read_at_once(0, kBytes));
  CHECK(read_at_once(12'345, 67'890));
  CHECK(read_at_once(0, 0));

  let_the_clock_tick();
  REQUIRE(::truncate(name.c_str(), 1000) == 0);
  std::string out(100, '?');
  const Result<bool> changed = store->read_at_once(ContentNo{0}, 0, bytes_of(out));
  REQUIRE_FALSE(changed);
  CHECK(changed.error().code == Errc::source_changed);
  store->fetch(ContentNo{0}, 0, kBytes);  // says nothing
}

TEST_CASE("a changed file is seen and answered as the policy says, and named once", "[law5]") {
  const bool open_before = GENERATE(false, true);
  const Change& change = GENERATE(from_range(changes()));
  const OnChange policy = GENERATE(OnChange::error, OnChange::zero, OnChange::stale);
  CAPTURE(open_before, change.name, static_cast<int>(policy));

  const TempDir dir;
  write_file(dir / "lib", kScanned);
  write_file(dir / "bystander", kScanned);
  auto table = std::make_shared<DirectoryTable>(dir.path());
  const ContentNo file = table->add("lib");
  const ContentNo bystander = table->add("bystander");
  CollectedLog log;
  const auto store = make_host_files(table, policy, log);
  Result<ContentStore::Pin> old_pin;
  if (open_before) {
    REQUIRE(read_text(*store, file, 0, kScanned.size()) == kScanned);
    old_pin = store->pin(file);
    REQUIRE(old_pin);
    REQUIRE(old_pin->file);
    REQUIRE(store->recheck(file, old_pin->file));
  }
  let_the_clock_tick();
  change.make(dir / "lib");

  if (open_before) {
    // Bytes that were moved around the change cannot be vouched for, whatever the policy.
    const Result<void> moved = store->recheck(file, old_pin->file);
    REQUIRE_FALSE(moved);
    CHECK(moved.error().code == Errc::source_changed);
  }
  for (int again = 0; again < 2; ++again) {
    for (const std::size_t offset : {std::size_t{0}, std::size_t{5}}) {
      const std::size_t length = kScanned.size() - offset;
      std::string text(length, '?');
      const Result<void> result = store->read(file, offset, bytes_of(text));
      if (policy == OnChange::error) {
        REQUIRE_FALSE(result);
        CHECK(result.error().code == Errc::source_changed);
        CHECK_THAT(result.error().what, Catch::StartsWith("lib changed after it was scanned: "));
      } else {
        std::string expected;
        if (policy == OnChange::stale && change.there_now.size() > offset) {
          expected = change.there_now.substr(offset, length);
        }
        expected.resize(length, '\0');
        REQUIRE(result);
        CHECK(text == expected);
      }
    }
    const Result<ContentStore::Pin> pin = store->pin(file);
    if (policy == OnChange::error) {
      REQUIRE_FALSE(pin);
      CHECK(pin.error().code == Errc::source_changed);
    } else {
      REQUIRE(pin);
      CHECK_FALSE(pin->file);
    }
  }
  CHECK(read_text(*store, bystander, 0, kScanned.size()) == kScanned);
  REQUIRE(log.lines().size() == 1);
  CHECK_THAT(log.lines().front(), Catch::StartsWith("lib changed after it was scanned: "));
}

TEST_CASE("a file that cannot be opened for another reason is a failure, not a change") {
  class Locked final : public HostFileTable {
   public:
    FileIdentity identity(ContentNo) const override { return {}; }
    std::string path(ContentNo) const override { return "secret"; }
    Result<UniqueFd> open(ContentNo) const override { return fail_errno(EACCES, "open secret"); }
  };
  const OnChange policy = GENERATE(OnChange::error, OnChange::zero, OnChange::stale);
  CollectedLog log;
  const auto store = make_host_files(std::make_shared<Locked>(), policy, log);
  CHECK(read_text(*store, ContentNo{0}, 0, 5) == "error: open secret: Permission denied");
  const Result<ContentStore::Pin> pin = store->pin(ContentNo{0});
  REQUIRE_FALSE(pin);
  CHECK(pin.error().code == Errc::io);
  CHECK(log.lines().empty());
}

TEST_CASE("no more files stay open than were allowed, and the last used ones do") {
  const TempDir dir;
  auto table = std::make_shared<DirectoryTable>(dir.path());
  std::vector<ContentNo> files;
  for (int i = 0; i < 200; ++i) {
    const std::string name = std::to_string(i);
    write_file(dir / name, name);
    files.push_back(table->add(name));
  }
  const std::size_t most = GENERATE(1U, 3U, 16U, 40U, 100U);
  CAPTURE(most);
  const int before = open_descriptors();
  const auto store = make_host_files(table, OnChange::error, null_log(), most);
  for (int i = 0; i < 200; ++i) {
    CHECK(read_text(*store, files[static_cast<std::size_t>(i)], 0, 1) ==
          std::to_string(i).substr(0, 1));
    CHECK(open_descriptors() - before <= static_cast<int>(most));
  }
  const int opened = table->opened;
  CHECK(read_text(*store, files.back(), 0, 3) == "199");
  CHECK(table->opened == opened);
  CHECK(read_text(*store, files.front(), 0, 1) == "0");
  CHECK(table->opened == opened + 1);
}

TEST_CASE("all stores together keep half of the descriptors at most") {
  const TempDir dir;
  auto table = std::make_shared<DirectoryTable>(dir.path());
  std::vector<ContentNo> files;
  for (int i = 0; i < 100; ++i) {
    const std::string name = std::to_string(i);
    write_file(dir / name, name);
    files.push_back(table->add(name));
  }
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit narrow = before;
  narrow.rlim_cur = 160;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &narrow) == 0);
  const int open_before = open_descriptors();
  {
    const auto first = make_host_files(table, OnChange::error, null_log(), 100);
    const auto second = make_host_files(table, OnChange::error, null_log(), 100);
    for (const ContentNo file : files) {
      CHECK(read_text(*first, file, 0, 1).size() == 1);
      CHECK(read_text(*second, file, 0, 1).size() == 1);
    }
    CHECK(open_descriptors() - open_before <= 80);
    CHECK(open_descriptors() - open_before >= 70);
  }
  CHECK(open_descriptors() == open_before);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  // And what they gave back is there for others.
  const auto third = make_host_files(table, OnChange::error, null_log(), 100);
  for (const ContentNo file : files) read_text(*third, file, 0, 1);
  CHECK(open_descriptors() - open_before >= 90);
}

TEST_CASE("a pinned file outlives its place among the open ones") {
  const TempDir dir;
  write_file(dir / "a", "pinned");
  write_file(dir / "b", "other");
  auto table = std::make_shared<DirectoryTable>(dir.path());
  const ContentNo a = table->add("a");
  const ContentNo b = table->add("b");
  const auto store = make_host_files(table, OnChange::error, null_log(), 1);
  const Result<ContentStore::Pin> pin = store->pin(a);
  REQUIRE(pin);
  CHECK(read_text(*store, b, 0, 5) == "other");
  std::string text(6, '?');
  CHECK(::pread(pin->file.fd(), text.data(), text.size(), static_cast<off_t>(pin->file_offset)) ==
        6);
  CHECK(text == "pinned");
  CHECK(store->recheck(a, pin->file));
}

TEST_CASE("out of descriptors, the unused ones are given up") {
  const TempDir dir;
  auto table = std::make_shared<DirectoryTable>(dir.path());
  std::vector<ContentNo> files;
  for (int i = 0; i < 40; ++i) {
    const std::string name = std::to_string(100 + i);
    write_file(dir / name, name);
    files.push_back(table->add(name));
  }
  const auto store = make_host_files(table, OnChange::error, null_log(), 4096);
  for (std::size_t i = 0; i < 20; ++i) read_text(*store, files[i], 0, 3);

  rlimit old_limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &old_limit) == 0);
  rlimit low = old_limit;
  low.rlim_cur = 64;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  std::vector<UniqueFd> hogs;
  while (true) {
    UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!fd) break;
    hogs.push_back(std::move(fd));
  }
  const int reason = errno;
  std::vector<std::string> texts;
  for (std::size_t i = 20; i < 40; ++i) texts.push_back(read_text(*store, files[i], 0, 3));
  ::setrlimit(RLIMIT_NOFILE, &old_limit);

  CHECK(reason == EMFILE);
  for (std::size_t i = 0; i < texts.size(); ++i) CHECK(texts[i] == std::to_string(120 + i));
}

TEST_CASE("out of descriptors with none to give up is an error that says so") {
  class Exhausted final : public HostFileTable {
   public:
    FileIdentity identity(ContentNo) const override { return {}; }
    std::string path(ContentNo) const override { return "a"; }
    Result<UniqueFd> open(ContentNo) const override { return fail_errno(EMFILE, "open a"); }
  };
  const auto store = make_host_files(std::make_shared<Exhausted>(), OnChange::zero, null_log());
  CHECK(read_text(*store, ContentNo{0}, 0, 5) == "error: open a: Too many open files");
}

TEST_CASE("identities differ when any part does, and stat agrees with statx") {
  struct stat base{};
  base.st_dev = 1;
  base.st_ino = 7;
  base.st_nlink = 1;
  base.st_size = 100;
  base.st_mtim = {2, 3};
  base.st_ctim = {4, 5};
  const FileIdentity scanned = identity_of(base);
  CHECK_FALSE(file_difference(scanned, base, ChangeCheck::ctime));
  struct Part {
    const char* word;  // of the message, which names the field
    bool only_ctime;
    std::function<void(struct stat&)> change;
  };
  for (const Part& part : std::vector<Part>{
           {"device", false, [](struct stat& status) { status.st_dev = 2; }},
           {"inode", false, [](struct stat& status) { status.st_ino = 8; }},
           {"size was 100 bytes and is 101", false, [](struct stat& status) { ++status.st_size; }},
           {"mtime differs", false, [](struct stat& status) { ++status.st_mtim.tv_sec; }},
           {"mtime differs", false, [](struct stat& status) { --status.st_mtim.tv_nsec; }},
           {"ctime differs", true, [](struct stat& status) { ++status.st_ctim.tv_sec; }},
           {"ctime differs", true, [](struct stat& status) { --status.st_ctim.tv_nsec; }}}) {
    CAPTURE(part.word);
    struct stat now = base;
    part.change(now);
    const auto how = file_difference(scanned, now, ChangeCheck::ctime);
    REQUIRE(how);
    CHECK(how->what.find(part.word) != std::string::npos);
    CHECK(file_difference(scanned, now, ChangeCheck::mtime).has_value() == !part.only_ctime);
  }

  for (const char* path : {"/", "/dev/null", "/proc/self/stat", "/etc/passwd"}) {
    CAPTURE(path);
    struct stat status;
    struct statx extended;
    REQUIRE(::stat(path, &status) == 0);
    REQUIRE(::statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &extended) == 0);
    if (status.st_ctim.tv_nsec != extended.stx_ctime.tv_nsec) continue;  // /proc makes them up
    CHECK(identity_of(status) == identity_of(extended));
  }
}

TEST_CASE(
    "a link, a mode or an attribute of a served file ends it by its ctime, not by its mtime") {
  const TempDir dir;
  struct Touch {
    const char* name;
    std::function<void(const std::filesystem::path&)> make;
  };
  for (const Touch& touch :
       std::vector<Touch>{{"link",
                           [](const auto& path) {
                             std::filesystem::create_hard_link(path, path.string() + ".2");
                           }},
                          {"chmod",
                           [](const auto& path) {
                             std::filesystem::permissions(path, std::filesystem::perms::owner_all);
                           }},
                          {"owner", [](const auto& path) {
                             REQUIRE(::chown(path.c_str(), ::geteuid(), ::getegid()) == 0);
                           }}}) {
    for (const bool read_before : {false, true}) {
      CAPTURE(touch.name, read_before);
      const std::string name = std::string(touch.name) + (read_before ? "1" : "0");
      write_file(dir / name, kScanned);
      const auto table = std::make_shared<DirectoryTable>(dir.path());
      const ContentNo file = table->add(name);
      CollectedLog log;
      const auto strict = make_host_files(table, OnChange::error, log);
      const auto lenient =
          make_host_files(table, {OnChange::error, ChangeCheck::mtime}, null_log());
      if (read_before) {
        CHECK(read_text(*strict, file, 0, 4) == "what");
        CHECK(read_text(*lenient, file, 0, 4) == "what");
      }
      let_the_clock_tick();
      touch.make(dir / name);
      CHECK(read_text(*strict, file, 0, 4).find("its ctime differs") != std::string::npos);
      REQUIRE(log.lines().size() == 1);
      CHECK(log.lines()[0].ends_with("; reads of it fail [change-check=mtime]"));
      CHECK(read_text(*lenient, file, 0, 4) == "what");
      const auto pin = lenient->pin(file);
      REQUIRE(pin);
      CHECK(lenient->recheck(file, pin->file));
      // What is written is seen all the same.
      let_the_clock_tick();
      write_file(dir / name, "WHAT THE SCAN SAW");
      CHECK(read_text(*lenient, file, 0, 4).find("its mtime differs") != std::string::npos);
      CHECK_FALSE(lenient->recheck(file, pin->file));
    }
  }
}

TEST_CASE("many threads read few slots while a file changes under them", "[threads]") {
  const TempDir dir;
  auto table = std::make_shared<DirectoryTable>(dir.path());
  constexpr std::size_t kFiles = 30;
  for (std::size_t i = 0; i < kFiles; ++i) {
    const std::string name = std::to_string(i);
    write_file(dir / name, std::string(5000, static_cast<char>('A' + i)));
    table->add(name);
  }
  CollectedLog log;
  const auto store = make_host_files(table, OnChange::error, log, 20);
  let_the_clock_tick();

  std::atomic<int> wrong = 0;
  std::atomic<int> changed = 0;
  std::atomic<bool> rewritten = false;
  std::vector<std::jthread> readers;
  for (unsigned t = 0; t < 4; ++t) {
    readers.emplace_back([&, t] {
      std::minstd_rand random(t + 1);
      std::string text(5000, '?');
      for (int round = 0; round < 2000; ++round) {
        const std::size_t file = random() % kFiles;
        const bool must_see = rewritten;
        const auto no = static_cast<ContentNo>(file);
        Result<void> result = store->read(no, 0, bytes_of(text));
        if (result && random() % 8 == 0) {
          const Result<ContentStore::Pin> pin = store->pin(no);
          if (pin) result = store->recheck(no, pin->file);
        }
        if (!result) {
          ++(file == 7 ? changed : wrong);
        } else if (text != std::string(5000, static_cast<char>('A' + file)) ||
                   (must_see && file == 7)) {
          ++wrong;
        }
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  write_file(dir / "7", std::string(5000, '!'));
  rewritten = true;
  readers.clear();

  CHECK(wrong == 0);
  CHECK(changed > 0);
  CHECK(log.lines().size() == 1);
}

}  // namespace mkvirtfs
