// SPDX-License-Identifier: BSD-3-Clause
// The tasks are a stack: what was found last is looked at first, deep before wide, so that few
// directories are open at a time. Workers sleep while it is empty and others may still find
// something. Long directories hand names over to sleeping workers.
#include "fsgen/host/walk.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <iterator>

namespace mkvirtfs {
namespace {

constexpr std::size_t kMostNamedTroubles = 100;
constexpr std::size_t kMostPathBytesInMessages = 4096;

std::size_t most_open_directories_of(const ScanTuning& tuning) {
  if (tuning.most_open_directories != 0) return tuning.most_open_directories;
  constexpr rlim_t kMost = 2048;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 64;
  return static_cast<std::size_t>(std::min(limit.rlim_cur / 2, kMost));
}

}  // namespace

std::string path_of(const ScannedDirectory& directory) {
  std::vector<std::string_view> names;
  for (const auto* at = &directory; at->parent != nullptr; at = at->parent) {
    names.push_back(at->name());
  }
  std::string path;
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    path += *name;
    path += '/';
  }
  return path;
}

void Troubles::add(std::string path, const std::string& why) {
  if (path.size() > kMostPathBytesInMessages) {
    path.replace(0, path.size() - kMostPathBytesInMessages, "...");
  }
  ++count_;
  first_.insert(path + ": " + why);
  if (first_.size() > kMostNamedTroubles) first_.erase(std::prev(first_.end()));
}

Walk::Walk(const ScanOptions& scan_options, const EntryRules& scan_rules,
           const ConfinedOpener& confined, const ScanTuning& scan_tuning, UniqueFd root_fd)
    : options(scan_options),
      rules(scan_rules),
      opener(confined),
      tuning(scan_tuning),
      most_open_directories(most_open_directories_of(scan_tuning)),
      root(std::make_shared<OpenDirectory>(std::move(root_fd), open_directories)) {
  struct stat status{};
  if (::fstat(root->fd(), &status) == 0) root_device = status.st_dev;
  if (options.sync_within) sync = std::make_unique<SourceSync>(*options.sync_within);
}

std::optional<WalkTask> Walk::take() {
  MutexLock lock(mutex_);
  while (tasks_.empty() && unfinished_ != 0 && !stopped()) {
    ++sleeping_;
    lock.wait(work_);
    --sleeping_;
  }
  if (tasks_.empty() || stopped()) return std::nullopt;
  WalkTask task = std::move(tasks_.back());
  tasks_.pop_back();
  if (task.names) --lists_of_names_;
  return task;
}

void Walk::push(std::vector<WalkTask> tasks) {
  if (tasks.empty()) return;
  unfinished_ += tasks.size();
  tasks_.insert(tasks_.end(), std::make_move_iterator(tasks.begin()),
                std::make_move_iterator(tasks.end()));
  if (sleeping_ != 0) work_.notify_all();
}

void Walk::add(std::vector<WalkTask> tasks) {
  const MutexLock lock(mutex_);
  push(std::move(tasks));
}

bool Walk::offer(WalkTask& task) {
  const MutexLock lock(mutex_);
  // One list for each that sleeps and one more keeps all busy, and the memory for names bounded.
  if (lists_of_names_ > sleeping_) return false;
  ++lists_of_names_;
  std::vector<WalkTask> tasks;
  tasks.push_back(std::move(task));
  push(std::move(tasks));
  return true;
}

void Walk::task_done() {
  const MutexLock lock(mutex_);
  if (--unfinished_ == 0) work_.notify_all();
}

void Walk::deliver(ScannedDirectory& directory, ScanSegment segment, const WalkCounts& counts,
                   std::vector<WalkTask> tasks) {
  const MutexLock lock(mutex_);
  directory.segments.push_back(std::move(segment));
  counts_ += counts;
  push(std::move(tasks));
  if (counts_.entries >= tuning.most_nodes && !error_) {
    error_ = Error{Errc::does_not_fit,
                   0,
                   fmt::format("there are more than {} files and directories", tuning.most_nodes),
                   {},
                   {{"exclude"}}};
    stop_ = true;
    work_.notify_all();
  }
}

void Walk::trouble(std::string path, const std::string& why) {
  const MutexLock lock(mutex_);
  troubles_.add(std::move(path), why);
}

void Walk::give_up(Error error) {
  const MutexLock lock(mutex_);
  if (!error_) error_ = std::move(error);
  stop_ = true;
  work_.notify_all();
}

Result<WalkCounts> Walk::counts() {
  const MutexLock lock(mutex_);
  if (error_) return std::unexpected(*error_);
  return counts_;
}

void Walk::report_troubles(ScanReport& report) {
  const MutexLock lock(mutex_);
  report.unreadable_count = troubles_.count();
  report.unreadable_paths = troubles_.first();
}

}  // namespace mkvirtfs
