// SPDX-License-Identifier: BSD-3-Clause
// walk DIR: lists every directory below DIR and looks at every entry, on all processors, and keeps
// nothing. The time that no scan can beat by much; mkvirtfs is measured against it.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

/// A directory that is still needed, because names in it wait to be looked at.
class Directory {
 public:
  explicit Directory(int fd) : fd_(fd) {}
  ~Directory() { close(fd_); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

/// Names of one directory. A large directory is several of them, so that all processors share it.
struct Batch {
  std::shared_ptr<Directory> directory;
  std::vector<std::string> names;
};

class Walk {
 public:
  explicit Walk(std::shared_ptr<Directory> root) { list(std::move(root)); }

  std::uint64_t run() {
    std::vector<std::thread> threads;
    for (unsigned n = std::thread::hardware_concurrency(); n > 0; --n) {
      threads.emplace_back([this] { work(); });
    }
    for (std::thread& thread : threads) thread.join();
    return entries_;
  }

 private:
  void work() {
    std::uint64_t entries = 0;
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return !waiting_.empty() || busy_ == 0; });
      if (waiting_.empty()) break;
      const Batch batch = std::move(waiting_.back());
      waiting_.pop_back();
      ++busy_;
      lock.unlock();
      entries += look_at(batch);
      lock.lock();
      if (--busy_ == 0) changed_.notify_all();
    }
    entries_ += entries;
  }

  std::uint64_t look_at(const Batch& batch) {
    for (const std::string& name : batch.names) {
      struct stat status{};
      if (fstatat(batch.directory->fd(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
      if (!S_ISDIR(status.st_mode)) continue;
      const int fd =
          openat(batch.directory->fd(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      if (fd >= 0) list(std::make_shared<Directory>(fd));
    }
    return batch.names.size();
  }

  void list(std::shared_ptr<Directory> directory) {
    constexpr std::size_t kBatchNames = 4096;
    DIR* const stream = fdopendir(dup(directory->fd()));
    if (stream == nullptr) return;
    Batch batch{directory, {}};
    while (const dirent* entry = readdir(stream)) {
      std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      batch.names.push_back(std::move(name));
      if (batch.names.size() == kBatchNames) add(std::exchange(batch, Batch{directory, {}}));
    }
    closedir(stream);
    if (!batch.names.empty()) add(std::move(batch));
  }

  void add(Batch batch) {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(batch));
    changed_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> waiting_;
  unsigned busy_ = 0;
  std::uint64_t entries_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  const int fd = count == 2 ? open(arguments[1], O_RDONLY | O_DIRECTORY) : -1;
  if (fd < 0) {
    std::fprintf(stderr, "usage: walk DIR\n");
    return 2;
  }
  Walk walk(std::make_shared<Directory>(fd));
  std::printf("%ju entries\n", static_cast<std::uintmax_t>(walk.run()));
  return 0;
}
