// SPDX-License-Identifier: BSD-3-Clause
#include "block/dump.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <random>
#include <thread>

#include "block/host_files.h"
#include "block/testing/directory_table.h"
#include "block/testing/faulty_device.h"
#include "block/testing/patchwork_device.h"
#include "support/sha256.h"
#include "support/unique_fd.h"
#include "tests/support/hinted_text.h"
#include "tests/support/no_threads.h"
#include "tests/support/privileges.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

using testing::DirectoryTable;
using testing::FaultyDevice;
using testing::PatchworkDevice;

constexpr std::uint64_t kNever = ~std::uint64_t{0};

std::string random_bytes(std::size_t size, unsigned seed) {
  std::minstd_rand random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random() >> 8);
  return bytes;
}

std::string bytes_of(BlockDevice& device) {
  std::string bytes(device.geometry().size_bytes, '?');
  REQUIRE(device.read(0, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

std::array<std::byte, 32> sha256_of(const std::string& bytes) {
  Sha256 digest;
  digest.update(std::as_bytes(std::span(bytes)));
  return digest.finish();
}

std::vector<std::string> names_in(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

std::uint64_t allocated_bytes(const std::filesystem::path& path) {
  struct stat status;
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

/// A source directory with some files, and a device that shows them among all other kinds of
/// extents, at odd offsets.
struct Source {
  explicit Source(OnChange on_change = OnChange::error) {
    static const std::string big_bytes = random_bytes(14'000'001, 1);
    write_file(dir / "big", big_bytes);
    write_file(dir / "middle", random_bytes(300'000, 2));
    for (unsigned i = 0; i < 50; ++i) {
      write_file(dir / ("small" + std::to_string(i)), random_bytes(100 + 977 * i, 3 + i));
    }
    const ContentNo big = table->add("big");
    const ContentNo middle = table->add("middle");
    store = make_host_files(table, on_change, null_log());
    device.memory("superblock").computed(4086).hole(100'000).computed(3);
    for (unsigned i = 0; i < 50; ++i) {
      const ContentNo small = table->add("small" + std::to_string(i));
      const std::uint64_t size = 100 + 977 * i;
      device.file(*store, small, 0, size).hole(4096 - size % 4096);
    }
    device.hole(3 << 20).file(*store, middle, 5, 299'990).computed(50'000);
    device.file(*store, big, 0, 14'000'001).hole(7'000'000).memory("the end");
  }

  TempDir dir;
  std::shared_ptr<DirectoryTable> table = std::make_shared<DirectoryTable>(dir.path());
  std::shared_ptr<ContentStore> store;
  PatchworkDevice device;
};

/// Reads a descriptor to its end on a thread of its own.
class Reader {
 public:
  explicit Reader(UniqueFd fd) : fd_(std::move(fd)), thread_([this] { run(); }) {}
  std::string finish() {
    thread_.join();
    return std::move(bytes_);
  }

 private:
  void run() {
    std::string buffer(100'000, '\0');
    while (true) {
      const ssize_t count = ::read(fd_.get(), buffer.data(), buffer.size());
      if (count <= 0) return;
      bytes_.append(buffer, 0, static_cast<std::size_t>(count));
    }
  }

  UniqueFd fd_;
  std::string bytes_;
  std::thread thread_;
};

std::pair<UniqueFd, UniqueFd> make_pipe() {
  int fds[2];
  REQUIRE(::pipe2(fds, O_CLOEXEC) == 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

DumpOptions to_file(const std::filesystem::path& path, bool overwrite = false) {
  DumpOptions options;
  options.output = DumpFile{path.string(), overwrite};
  return options;
}

}  // namespace

TEST_CASE("a dump holds what the device reads, however it is made", "[law2]") {
  Source source;
  const std::string expected = bytes_of(source.device);
  const unsigned threads = GENERATE(0U, 1U, 3U);
  const bool sha256 = GENERATE(false, true);
  CAPTURE(threads, sha256);

  SECTION("to a file") {
    const TempDir out;
    DumpOptions options = to_file(out / "disk.img");
    options.threads = threads;
    options.sha256 = sha256;
    const Result<DumpSummary> summary = dump(source.device, options);
    REQUIRE(summary);
    CHECK(read_file(out / "disk.img") == expected);
    CHECK(names_in(out.path()) == std::vector<std::string>{"disk.img"});
    CHECK(summary->image_bytes == expected.size());
    CHECK(summary->data_bytes < expected.size() - 10'000'000);
    CHECK(summary->sha256.has_value() == sha256);
    if (sha256) CHECK(*summary->sha256 == sha256_of(expected));
    // The holes take no room (the file system's own rounding aside).
    CHECK(allocated_bytes(out / "disk.img") < summary->data_bytes + (1 << 20));
  }
  SECTION("to a pipe") {
    auto [from, to] = make_pipe();
    Reader reader(std::move(from));
    DumpOptions options;
    options.output = DumpStream{to.get(), "a pipe"};
    options.threads = threads;
    options.sha256 = sha256;
    const Result<DumpSummary> summary = dump(source.device, options);
    to.reset();
    CHECK(reader.finish() == expected);
    REQUIRE(summary);
    if (sha256) CHECK(*summary->sha256 == sha256_of(expected));
  }
}

TEST_CASE("a dump is whole where the host starts no thread") {
  Source source;
  const std::string expected = bytes_of(source.device);
  const bool sha256 = GENERATE(false, true);
  CAPTURE(sha256);
  const TempDir out;
  DumpOptions options = to_file(out / "disk.img");
  options.threads = 3;
  options.sha256 = sha256;
  auto [from, to] = make_pipe();
  Reader reader(std::move(from));
  const testing::NoThreads no_threads;
  const Result<DumpSummary> summary = dump(source.device, options);
  REQUIRE(summary);
  CHECK(read_file(out / "disk.img") == expected);
  if (sha256) CHECK(*summary->sha256 == sha256_of(expected));
  options.output = DumpStream{to.get(), "a pipe"};
  REQUIRE(dump(source.device, options));
  to.reset();
  CHECK(reader.finish() == expected);
}

TEST_CASE("devices of awkward sizes are dumped to the last byte") {
  const std::uint64_t size = GENERATE(1U, 4095U, 4096U, 4097U, (1U << 20) - 1, 1U << 20,
                                      (1U << 20) + 1, 16U << 20, (16U << 20) + 1);
  const bool holes = GENERATE(false, true);
  const bool sha256 = GENERATE(false, true);
  CAPTURE(size, holes, sha256);
  const TempDir out;
  PatchworkDevice device;
  holes ? device.hole(size) : device.computed(size);
  DumpOptions options = to_file(out / "disk.img");
  options.sha256 = sha256;
  const Result<DumpSummary> summary = dump(device, options);
  REQUIRE(summary);
  CHECK(summary->data_bytes == (holes ? 0 : size));
  const std::string expected = bytes_of(device);
  CHECK((read_file(out / "disk.img") == expected));
  if (sha256) CHECK(*summary->sha256 == sha256_of(expected));
}

TEST_CASE("an empty device makes an empty file") {
  const TempDir out;
  PatchworkDevice device;
  REQUIRE(dump(device, to_file(out / "disk.img")));
  CHECK(read_file(out / "disk.img").empty());
}

TEST_CASE("a huge hole costs neither time nor room") {
  const TempDir out;
  PatchworkDevice device;
  device.computed(5000).hole(std::uint64_t{1} << 40).computed(5000);
  REQUIRE(dump(device, to_file(out / "disk.img")));
  CHECK(std::filesystem::file_size(out / "disk.img") == (std::uint64_t{1} << 40) + 10000);
  CHECK(allocated_bytes(out / "disk.img") < 1 << 20);
}

TEST_CASE("what stands in the way is not touched without being told to") {
  const TempDir out;
  PatchworkDevice device;
  device.memory("image");
  write_file(out / "file", "precious");
  std::filesystem::create_directory(out / "directory");
  std::filesystem::create_symlink("file", out / "link");
  std::filesystem::create_symlink("nowhere", out / "dangling");
  const auto before = names_in(out.path());

  for (const char* name : {"file", "link", "dangling"}) {
    CAPTURE(name);
    const Result<DumpSummary> summary = dump(device, to_file(out / name));
    REQUIRE_FALSE(summary);
    CHECK(summary.error().os_errno == EEXIST);
    CHECK_THAT(hinted_text(summary.error()), Catch::EndsWith("exists already [force]"));
  }
  for (const bool overwrite : {false, true}) {
    const Result<DumpSummary> summary = dump(device, to_file(out / "directory", overwrite));
    REQUIRE_FALSE(summary);
    CHECK(summary.error().os_errno == EISDIR);
  }
  const Result<DumpSummary> missing = dump(device, to_file(out / "no/such/disk.img"));
  REQUIRE_FALSE(missing);
  CHECK(missing.error().os_errno == ENOENT);
  CHECK(read_file(out / "file") == "precious");
  CHECK(names_in(out.path()) == before);

  SECTION("told to, a file is replaced") {
    REQUIRE(dump(device, to_file(out / "file", true)));
    CHECK(read_file(out / "file") == "image");
    CHECK(names_in(out.path()) == before);
  }
  SECTION("told to, what a link leads to is replaced, and the link stays") {
    REQUIRE(dump(device, to_file(out / "link", true)));
    CHECK(read_file(out / "file") == "image");
    CHECK(std::filesystem::is_symlink(out / "link"));
    CHECK(names_in(out.path()) == before);
  }
}

TEST_CASE("a file that appears while the dump runs is not replaced") {
  const TempDir out;
  PatchworkDevice below;
  below.computed(100'000);
  FaultyDevice device(below, kNever);
  device.before_read = [&](std::uint64_t) { write_file(out / "disk.img", "precious"); };
  const Result<DumpSummary> summary = dump(device, to_file(out / "disk.img"));
  REQUIRE_FALSE(summary);
  CHECK(summary.error().os_errno == EEXIST);
  CHECK(read_file(out / "disk.img") == "precious");
  CHECK(names_in(out.path()) == std::vector<std::string>{"disk.img"});
}

TEST_CASE("a read that fails anywhere leaves nothing behind") {
  Source source;
  const bool sha256 = GENERATE(false, true);
  const bool stood_there = GENERATE(false, true);
  FaultyDevice counting(source.device, kNever);
  const TempDir out;
  DumpOptions options = to_file(out / "disk.img", true);
  options.sha256 = sha256;
  REQUIRE(dump(counting, options));
  std::filesystem::remove(out / "disk.img");
  if (stood_there) write_file(out / "disk.img", "precious");

  REQUIRE(counting.reads() > 2);
  for (std::uint64_t failing = 0; failing < counting.reads(); ++failing) {
    FaultyDevice device(source.device, failing);
    const Result<DumpSummary> summary = dump(device, options);
    REQUIRE_FALSE(summary);
    REQUIRE(summary.error().what == "read a faulty device: Input/output error");
    REQUIRE(names_in(out.path()).size() == (stood_there ? 1 : 0));
    if (stood_there) REQUIRE(read_file(out / "disk.img") == "precious");
  }
}

TEST_CASE("a full host is reported as such, and a device is not deleted for it") {
  PatchworkDevice device;
  device.computed(3'000'000);
  const bool overwrite = GENERATE(false, true);
  const Result<DumpSummary> summary = dump(device, to_file("/dev/full", overwrite));
  REQUIRE_FALSE(summary);
  CHECK(summary.error().code == Errc::no_space);
  CHECK(summary.error().what == "write /dev/full: No space left on device");
  CHECK(std::filesystem::is_character_file("/dev/full"));
}

namespace {

/// Gives this process a mount namespace of its own, in which it may mount: as root at once, else by
/// way of a user namespace in which it is root.
bool enter_mount_namespace() {
  const auto write_text = [](const char* path, const std::string& text) {
    const UniqueFd fd(::open(path, O_WRONLY | O_CLOEXEC));
    return fd && ::write(fd.get(), text.data(), text.size()) > 0;
  };
  const std::string uid_map = "0 " + std::to_string(::geteuid()) + " 1";
  const std::string gid_map = "0 " + std::to_string(::getegid()) + " 1";
  if (::unshare(CLONE_NEWNS) != 0) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    write_text("/proc/self/setgroups", "deny");
    if (!write_text("/proc/self/uid_map", uid_map)) return false;
    if (!write_text("/proc/self/gid_map", gid_map)) return false;
  }
  return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

}  // namespace

TEST_CASE("a file system that fills up keeps no part of the image") {
  // A small tmpfs in a mount namespace of a child process: nothing of it is seen outside.
  const TempDir out;
  PatchworkDevice device;
  device.computed(3'000'000).hole(100'000'000);
  const std::string target = (out / "disk.img").string();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (!enter_mount_namespace()) ::_exit(77);
    if (::mount("none", out.path().c_str(), "tmpfs", 0, "size=1m") != 0) ::_exit(77);
    const Result<DumpSummary> summary = dump(device, to_file(target));
    if (summary) ::_exit(1);
    if (summary.error().code != Errc::no_space) ::_exit(2);
    if (!std::filesystem::is_empty(out.path())) ::_exit(3);
    if (std::filesystem::space(out.path()).free != 1 << 20) ::_exit(4);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    testing::skipped("mounts");
  } else {
    CHECK(WEXITSTATUS(status) == 0);
  }
}

TEST_CASE("an image beyond the host's largest file is refused") {
  const TempDir out;
  PatchworkDevice device;
  device.hole(std::uint64_t{1} << 62);
  const Result<DumpSummary> summary = dump(device, to_file(out / "disk.img"));
  REQUIRE_FALSE(summary);
  CHECK(summary.error().code == Errc::no_space);
  CHECK(names_in(out.path()).empty());
}

TEST_CASE("a reader that leaves is an error, not the end of the program") {
  auto old = ::signal(SIGPIPE, SIG_IGN);
  auto [from, to] = make_pipe();
  from.reset();
  PatchworkDevice device;
  device.computed(100'000);
  DumpOptions options;
  options.output = DumpStream{to.get(), "standard output"};
  const Result<DumpSummary> summary = dump(device, options);
  ::signal(SIGPIPE, old);
  REQUIRE_FALSE(summary);
  CHECK(summary.error().what == "write standard output: Broken pipe");
}

TEST_CASE("an interrupted dump ends soon and leaves nothing") {
  PatchworkDevice below;
  below.computed(40 << 20);
  std::atomic<bool> cancel = false;
  SECTION("to a file") {
    const TempDir out;
    FaultyDevice device(below, kNever);
    device.before_read = [&](std::uint64_t number) {
      if (number == 3) cancel = true;
    };
    DumpOptions options = to_file(out / "disk.img");
    options.cancel = &cancel;
    options.sha256 = GENERATE(false, true);
    const Result<DumpSummary> summary = dump(device, options);
    REQUIRE_FALSE(summary);
    CHECK(summary.error().os_errno == ECANCELED);
    CHECK(names_in(out.path()).empty());
    CHECK(device.reads() < 20);
  }
  SECTION("to a pipe that nobody reads") {
    static std::atomic<bool>* flag;
    flag = &cancel;
    struct sigaction action{};
    action.sa_handler = [](int) { *flag = true; };
    struct sigaction before;
    REQUIRE(::sigaction(SIGUSR1, &action, &before) == 0);
    auto [from, to] = make_pipe();
    std::jthread interrupt([self = ::pthread_self()] {
      // More than once: the first may come before the write that it must interrupt.
      for (int i = 0; i < 20; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        ::pthread_kill(self, SIGUSR1);
      }
    });
    DumpOptions options;
    options.output = DumpStream{to.get(), "standard output"};
    options.cancel = &cancel;
    const Result<DumpSummary> summary = dump(below, options);
    REQUIRE_FALSE(summary);
    CHECK(summary.error().os_errno == ECANCELED);
    interrupt.join();
    ::sigaction(SIGUSR1, &before, nullptr);
  }
}

TEST_CASE("progress is reported on the caller's thread, grows, and ends at all of the data") {
  Source source;
  const TempDir out;
  DumpOptions options = to_file(out / "disk.img");
  options.sha256 = GENERATE(false, true);
  options.progress_interval = std::chrono::milliseconds(1);
  const auto caller = std::this_thread::get_id();
  std::vector<DumpProgress> told;
  bool own_thread = true;
  options.progress = [&](const DumpProgress& progress) {
    own_thread = own_thread && std::this_thread::get_id() == caller;
    told.push_back(progress);
  };
  const Result<DumpSummary> summary = dump(source.device, options);
  REQUIRE(summary);
  CHECK(own_thread);
  REQUIRE_FALSE(told.empty());
  CHECK(std::ranges::is_sorted(told, {}, &DumpProgress::data_done_bytes));
  CHECK(told.back().data_done_bytes == summary->data_bytes);
  CHECK(told.back().data_bytes == summary->data_bytes);
  CHECK(told.back().image_bytes == summary->image_bytes);
}

TEST_CASE("a new image has the permissions that the umask leaves") {
  const TempDir out;
  PatchworkDevice device;
  device.memory("image");
  const mode_t old = ::umask(027);
  REQUIRE(dump(device, to_file(out / "disk.img")));
  ::umask(old);
  struct stat status;
  REQUIRE(::stat((out / "disk.img").c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0640);
}

TEST_CASE("a file that changes while it is moved follows the policy", "[law5]") {
  /// Rewrites the file at the moment between the move and the recheck.
  class Meddler final : public ContentStore {
   public:
    Meddler(std::shared_ptr<ContentStore> below, std::filesystem::path path)
        : below_(std::move(below)), path_(std::move(path)) {}
    Result<void> read(ContentNo no, std::uint64_t offset, std::span<std::byte> out) override {
      return below_->read(no, offset, out);
    }
    Result<Pin> pin(ContentNo no) override { return below_->pin(no); }
    Result<void> recheck(ContentNo no, const PinnedFile& file) override {
      rechecked = true;
      write_file(path_, std::string(1'000'000, 'B'));
      return below_->recheck(no, file);
    }
    std::string name(ContentNo no) const override { return below_->name(no); }
    bool rechecked = false;

   private:
    std::shared_ptr<ContentStore> below_;
    std::filesystem::path path_;
  };

  const OnChange policy = GENERATE(OnChange::error, OnChange::zero, OnChange::stale);
  const TempDir dir;
  const TempDir out;
  write_file(dir / "file", std::string(1'000'000, 'A'));
  auto table = std::make_shared<DirectoryTable>(dir.path());
  const ContentNo file = table->add("file");
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // until the file clock ticks
  Meddler store(make_host_files(table, policy, null_log()), dir / "file");
  PatchworkDevice device;
  device.memory("head").file(store, file, 0, 1'000'000).memory("tail");
  const Result<DumpSummary> summary = dump(device, to_file(out / "disk.img"));
  if (!store.rechecked) {
    WARN("skipped: this host cannot copy between files");
    return;
  }
  if (policy == OnChange::error) {
    REQUIRE_FALSE(summary);
    CHECK(summary.error().code == Errc::source_changed);
    CHECK(names_in(out.path()).empty());
  } else {
    REQUIRE(summary);
    CHECK(summary->moved_bytes == 0);
    const std::string body(1'000'000, policy == OnChange::zero ? '\0' : 'B');
    CHECK((read_file(out / "disk.img") == "head" + body + "tail"));
  }
}

}  // namespace mkvirtfs
