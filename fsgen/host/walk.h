// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/host/read_access.h"
#include "fsgen/host/scan.h"
#include "fsgen/host/scan_records.h"
#include "fsgen/host/scan_walk.h"
#include "fsgen/host/source_sync.h"
#include "fsgen/tree/entry_rules.h"
#include "support/confined_open.h"
#include "support/error.h"
#include "support/mutex.h"
#include "support/unique_fd.h"

namespace mkvirtfs {

/// An open directory, shared by the tasks of its entries; counts itself.
class OpenDirectory {
 public:
  OpenDirectory(UniqueFd fd, std::atomic<std::size_t>& count) : fd_(std::move(fd)), count_(count) {
    ++count_;
  }
  ~OpenDirectory() { --count_; }
  OpenDirectory(const OpenDirectory&) = delete;
  OpenDirectory& operator=(const OpenDirectory&) = delete;

  int fd() const noexcept { return fd_.get(); }

 private:
  UniqueFd fd_;
  std::atomic<std::size_t>& count_;
};
using DirectoryHandle = std::shared_ptr<const OpenDirectory>;

/// Names found in a directory that are still to be looked at.
class NameList {
 public:
  struct Name {
    std::uint64_t inode;
    std::size_t at;
  };

  void add(std::string_view name, std::uint64_t inode) {
    names_.push_back({inode, text_.size()});
    text_.insert(text_.end(), name.begin(), name.end());
    text_.push_back('\0');
  }
  void clear() {
    names_.clear();
    text_.clear();
  }
  std::size_t size() const noexcept { return names_.size(); }
  const char* text(const Name& name) const noexcept { return text_.data() + name.at; }
  /// In the order in which their inodes likely lie in the host's tables and memory.
  const std::vector<Name>& by_inode() {
    std::ranges::sort(names_, {}, &Name::inode);
    return names_;
  }

 private:
  std::vector<Name> names_;
  std::vector<char> text_;
};

/// Either list a directory, or look at some of its names.
struct WalkTask {
  ScannedDirectory* directory = nullptr;
  /// To list: the parent's, or none when too many are open, then the way from the root is walked;
  /// the root's own for the root. To look at names: the directory's own.
  DirectoryHandle handle;
  std::unique_ptr<NameList> names;
};

/// From the root, with a '/' at its end unless it is empty.
std::string path_of(const ScannedDirectory& directory);

/// The first troubles by name, and the count of all.
class Troubles {
 public:
  void add(std::string path, const std::string& why);
  std::uint64_t count() const noexcept { return count_; }
  std::vector<std::string> first() const { return {first_.begin(), first_.end()}; }

 private:
  std::uint64_t count_ = 0;
  std::set<std::string> first_;
};

/// What all workers share: the stack of tasks, and what came out so far.
class Walk {
 public:
  Walk(const ScanOptions& scan_options, const EntryRules& scan_rules,
       const ConfinedOpener& confined, const ScanTuning& scan_tuning, UniqueFd root);

  const ScanOptions& options;
  const EntryRules& rules;
  const ConfinedOpener& opener;
  const ScanTuning& tuning;
  const ReadAccess access;
  const std::size_t most_open_directories;
  std::atomic<std::size_t> open_directories = 0;
  /// Present when file systems are to be written back.
  std::unique_ptr<SourceSync> sync;
  const DirectoryHandle root;
  std::uint64_t root_device = 0;
  std::unique_ptr<ScannedDirectory> root_directory = std::make_unique<ScannedDirectory>();
  ScanSegment root_record;  // by the worker that has the first task

  bool stopped() const noexcept { return stop_.load(std::memory_order_relaxed); }
  /// The next task; none when all is done, or a worker has given up.
  std::optional<WalkTask> take() EXCLUDES(mutex_);
  void add(std::vector<WalkTask> tasks) EXCLUDES(mutex_);
  /// Hands over names to look at, unless enough of them wait: then the caller looks itself.
  bool offer(WalkTask& task) EXCLUDES(mutex_);
  void task_done() EXCLUDES(mutex_);
  /// Takes entries of a directory, and the tasks to list the directories among them.
  void deliver(ScannedDirectory& directory, ScanSegment segment, const WalkCounts& counts,
               std::vector<WalkTask> tasks) EXCLUDES(mutex_);
  void trouble(std::string path, const std::string& why) EXCLUDES(mutex_);
  /// Ends the walk: nothing that could still be found matters.
  void give_up(Error error) EXCLUDES(mutex_);

  /// What came out, after the workers ended.
  Result<WalkCounts> counts() EXCLUDES(mutex_);
  void report_troubles(ScanReport& report) EXCLUDES(mutex_);

 private:
  void push(std::vector<WalkTask> tasks) REQUIRES(mutex_);

  std::atomic<bool> stop_ = false;
  Mutex mutex_;
  std::condition_variable_any work_;
  // The last pushed is taken first: deep before wide, so that few directories stay open.
  std::vector<WalkTask> tasks_ GUARDED_BY(mutex_);
  std::size_t unfinished_ GUARDED_BY(mutex_) = 0;  // waiting or being worked at
  std::size_t sleeping_ GUARDED_BY(mutex_) = 0;
  std::size_t lists_of_names_ GUARDED_BY(mutex_) = 0;  // in tasks_
  std::optional<Error> error_ GUARDED_BY(mutex_);
  Troubles troubles_ GUARDED_BY(mutex_);
  WalkCounts counts_ GUARDED_BY(mutex_);
};

}  // namespace mkvirtfs
