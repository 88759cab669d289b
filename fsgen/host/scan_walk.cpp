// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/host/scan_walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <new>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "fsgen/host/entry_reader.h"
#include "fsgen/host/read_access.h"
#include "fsgen/host/source_sync.h"
#include "fsgen/tree/node_limits.h"
#include "support/message.h"
#include "support/mutex.h"
#include "support/parallel.h"
#include "support/worker_pool.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kMostNamedTroubles = 100;
constexpr std::size_t kMostPathBytesInMessages = 4096;
constexpr unsigned kMostThreads = 16;  // more only meet on the kernel's locks
constexpr std::size_t kListingBufferBytes = std::size_t{128} << 10;

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
using Handle = std::shared_ptr<const OpenDirectory>;

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
  Handle handle;
  std::unique_ptr<NameList> names;
};

std::string path_of(const ScannedDirectory* directory) {
  std::vector<std::string_view> names;
  for (; directory->parent != nullptr; directory = directory->parent) {
    names.push_back(directory->name());
  }
  std::string path;
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    path += *name;
    path += '/';
  }
  return path;
}

/// The first troubles by name, and the count of all.
class Troubles {
 public:
  void add(std::string path, const std::string& why) {
    if (path.size() > kMostPathBytesInMessages) {
      path.replace(0, path.size() - kMostPathBytesInMessages, "...");
    }
    ++count_;
    first_.insert(path + ": " + why);
    if (first_.size() > kMostNamedTroubles) first_.erase(std::prev(first_.end()));
  }
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
  const Handle root;
  std::uint64_t root_device = 0;
  std::unique_ptr<ScannedDirectory> root_directory = std::make_unique<ScannedDirectory>();
  Segment root_record;  // by the worker that has the first task

  bool stopped() const noexcept { return stop_.load(std::memory_order_relaxed); }
  /// The next task, or none when all is done or somebody has given up.
  std::optional<WalkTask> take() EXCLUDES(mutex_);
  void add(std::vector<WalkTask> tasks) EXCLUDES(mutex_);
  /// Hands over names to look at, unless enough of them wait: then the caller looks itself.
  bool offer(WalkTask& task) EXCLUDES(mutex_);
  void task_done() EXCLUDES(mutex_);
  /// Takes entries of a directory, and the tasks to list the directories among them.
  void deliver(ScannedDirectory& directory, Segment segment, const WalkCounts& counts,
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

std::size_t most_open_directories_of(const ScanTuning& tuning) {
  if (tuning.most_open_directories != 0) return tuning.most_open_directories;
  constexpr rlim_t kMost = 2048;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 64;
  return static_cast<std::size_t>(std::min(limit.rlim_cur / 2, kMost));
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

void Walk::deliver(ScannedDirectory& directory, Segment segment, const WalkCounts& counts,
                   std::vector<WalkTask> tasks) {
  const MutexLock lock(mutex_);
  directory.segments.push_back(std::move(segment));
  counts_ += counts;
  push(std::move(tasks));
  if (counts_.entries >= tuning.most_nodes && !error_) {
    error_ = Error{Errc::does_not_fit, 0,
                   fmt::format("there are more than {} files and directories (try --exclude)",
                               tuning.most_nodes)};
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

/// Works at tasks until there are none.
class Worker {
 public:
  Worker(Walk& walk, std::uint32_t number)
      : walk_(walk),
        number_(number),
        reader_({walk.rules, walk.opener, walk.access, walk.options.entries.xattrs,
                 !walk.options.one_file_system, walk.root_device, walk.options.outputs,
                 walk.sync.get(), walk.options.keep_facts}),
        listing_(kListingBufferBytes) {}

  /// On a thread of its own, whose working directory it changes, or on the caller's.
  void run(bool may_change_directory) noexcept;

  // What it leaves behind.
  std::deque<ScannedDirectory>& directories() noexcept { return directories_; }
  XattrPool& xattrs() noexcept { return reader_.xattrs(); }
  bool has_own_directory() const noexcept { return reader_.has_own_directory(); }
  const std::vector<bool>& outputs_met() const noexcept { return reader_.outputs_met(); }
  std::uint64_t vanished = 0;
  std::uint64_t mount_points = 0;
  std::uint64_t excluded = 0;

 private:
  void look_at_root();
  void list(ScannedDirectory& directory, const Handle& parent);
  /// Opens a directory to list it; failures are counted or end the walk.
  Handle open(ScannedDirectory& directory, const Handle& parent);
  void take_name(ScannedDirectory& directory, const Handle& handle, const dirent64& found);
  bool excludes(const Handle& handle, const dirent64& found);
  void look(ScannedDirectory& directory, const Handle& handle, NameList& names);
  void look_at(ScannedDirectory& directory, const char* name);
  /// `os_errno` is why something could not be looked at; `path` is made when it is needed.
  template <class Path>
  void failed(int os_errno, Path path);
  /// Ends the walk when that is why.
  bool sync_failed(int os_errno);

  Walk& walk_;
  const std::uint32_t number_;
  EntryReader reader_;
  SegmentBuilder builder_;
  WalkCounts counts_;                       // of the segment that is being built
  std::vector<ScannedDirectory*> to_list_;  // found in it
  std::vector<std::byte> listing_;
  NameList names_;
  std::string path_;  // of the directory that is being listed, when the rules need it
  std::deque<ScannedDirectory> directories_;
};

void Worker::run(bool may_change_directory) noexcept {
  try {
    // Leaves the working directory that the threads of a process share.
    if (may_change_directory && walk_.tuning.use_own_directory && ::unshare(CLONE_FS) == 0) {
      reader_.use_own_directory();
    } else if (walk_.options.entries.xattrs && ::access("/proc/self/fd", F_OK) != 0) {
      walk_.give_up({Errc::unsupported, errno,
                     "extended attributes cannot be read where unshare(2) is refused and /proc is "
                     "missing (try without them)"});
    }
    while (std::optional<WalkTask> task = walk_.take()) {
      if (task->names) {
        look(*task->directory, task->handle, *task->names);
      } else {
        if (task->directory == walk_.root_directory.get()) look_at_root();
        list(*task->directory, task->handle);
      }
      task.reset();  // closes the directory before anybody can think that all is done
      walk_.task_done();
    }
  } catch (...) {
    walk_.give_up(error_of_exception("keep the names and attributes of a directory"));
  }
}

bool Worker::sync_failed(int os_errno) {
  if (os_errno != ECANCELED || !walk_.sync) return false;
  std::optional<Error> error = walk_.sync->error();
  if (!error) return false;
  walk_.give_up(std::move(*error));
  return true;
}

template <class Path>
void Worker::failed(int os_errno, Path path) {
  if (sync_failed(os_errno)) return;
  switch (os_errno) {
    case ENOENT:
    case ESTALE:
      ++vanished;
      break;
    case EMFILE:
    case ENFILE:
      walk_.give_up({Errc::io, os_errno,
                     fmt::format("open {}: too many open files (try a higher ulimit -n)", path())});
      break;
    case ENOMEM:
      throw std::bad_alloc();
    default:
      walk_.trouble(path(), std::generic_category().message(os_errno));
      break;
  }
}

void Worker::look_at_root() {
  reader_.enter(walk_.root->fd());
  auto entry = reader_.look(".");
  if (!entry && sync_failed(entry.error())) return;
  if (!entry) {
    walk_.give_up({Errc::unreadable, entry.error(),
                   fmt::format("look at the directory itself: {}",
                               std::generic_category().message(entry.error()))});
    return;
  }
  entry->tail.name = ".";
  entry->tail.directory = walk_.root_directory.get();
  builder_.add(entry->head, entry->tail);
  walk_.root_record = builder_.finish(number_);
}

Handle Worker::open(ScannedDirectory& directory, const Handle& parent) {
  if (directory.parent == nullptr) return walk_.root;
  std::expected<UniqueFd, int> fd;
  if (parent) {
    const std::string name(directory.name());
    fd = walk_.opener.open(parent->fd(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK);
  } else {
    std::vector<std::string_view> names;
    for (const auto* at = &directory; at->parent != nullptr; at = at->parent) {
      names.push_back(at->name());
    }
    std::ranges::reverse(names);
    fd = walk_.opener.open_chain(walk_.root->fd(), names, O_RDONLY | O_NONBLOCK);
  }
  if (fd) return std::make_shared<OpenDirectory>(std::move(*fd), walk_.open_directories);
  switch (fd.error()) {
    case ENOENT:
    case ESTALE:
    case ENOTDIR:  // something else stands there by now
    case ELOOP:
      directory.vanished = true;
      ++vanished;
      break;
    case EXDEV:
      ++mount_points;
      break;
    default:
      failed(fd.error(), [&] { return path_of(&directory); });
      break;
  }
  return nullptr;
}

void Worker::list(ScannedDirectory& directory, const Handle& parent) {
  const Handle handle = open(directory, parent);
  if (!handle) return;
  names_.clear();
  if (!walk_.rules.takes_all()) path_ = path_of(&directory);
  while (!walk_.stopped()) {
    const ssize_t size = ::getdents64(handle->fd(), listing_.data(), listing_.size());
    if (size == 0) break;
    if (size < 0) {
      if (errno == ENOENT) directory.vanished = true;
      failed(errno, [&] { return path_of(&directory); });
      break;
    }
    for (const std::byte *at = listing_.data(), *end = at + size; at < end;) {
      // The kernel aligns every entry for its type.
      const auto& found = *reinterpret_cast<const dirent64*>(at);
      take_name(directory, handle, found);
      at += found.d_reclen;
    }
  }
  look(directory, handle, names_);
}

void Worker::take_name(ScannedDirectory& directory, const Handle& handle, const dirent64& found) {
  const std::string_view name(found.d_name);
  if (name == "." || name == "..") return;
  // Some file systems count 255 in other units than bytes, and nobody guards against broken ones.
  if (name.empty() || name.size() > kMostNameBytes || name.contains('/')) {
    walk_.trouble(path_of(&directory) + std::string(name), name.size() > kMostNameBytes
                                                               ? "its name has more than 255 bytes"
                                                               : "no name of a file");
    return;
  }
  if (!walk_.rules.takes_all() && excludes(handle, found)) {
    ++excluded;
    return;
  }
  names_.add(name, found.d_ino);
  if (names_.size() < walk_.tuning.names_a_task) return;

  WalkTask task{&directory, handle, std::make_unique<NameList>(std::move(names_))};
  names_ = NameList();
  if (!walk_.offer(task)) {
    look(directory, handle, *task.names);
    names_ = std::move(*task.names);  // for its memory
    names_.clear();
  }
}

bool Worker::excludes(const Handle& handle, const dirent64& found) {
  bool is_directory = found.d_type == DT_DIR;
  if (found.d_type == DT_UNKNOWN && walk_.rules.need_types()) {
    reader_.enter(handle->fd());
    is_directory = S_ISDIR(reader_.type_of(found.d_name));
  }
  return !walk_.rules.takes(path_, found.d_name, is_directory);
}

void Worker::look(ScannedDirectory& directory, const Handle& handle, NameList& names) {
  if (names.size() == 0) return;
  counts_ = {};
  to_list_.clear();
  reader_.enter(handle->fd());
  for (const NameList::Name& name : names.by_inode()) {
    if (walk_.stopped()) return;
    look_at(directory, names.text(name));
  }
  if (builder_.empty()) return;
  Segment segment = builder_.finish(number_);

  // The stack gives them back in the order of their names, which is about that of the numbering.
  std::ranges::sort(to_list_, std::ranges::greater(), &ScannedDirectory::name);
  const bool keep_open = walk_.open_directories < walk_.most_open_directories;
  std::vector<WalkTask> tasks(to_list_.size());
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    tasks[i].directory = to_list_[i];
    if (keep_open) tasks[i].handle = handle;
  }
  walk_.deliver(directory, std::move(segment), counts_, std::move(tasks));
}

void Worker::look_at(ScannedDirectory& directory, const char* name) {
  auto entry = reader_.look(name);
  if (!entry) {
    failed(entry.error(), [&] { return path_of(&directory) + name; });
    return;
  }
  if (entry->mount_point) ++mount_points;
  const RecordHead& head = entry->head;
  if (head.mode == 0) return;  // left out
  RecordTail& tail = entry->tail;
  tail.name = name;
  if (S_ISDIR(head.mode)) {
    tail.directory = &directories_.emplace_back();
    tail.directory->parent = &directory;
    if (!entry->mount_point) to_list_.push_back(tail.directory);
    ++counts_.directories;
  }
  builder_.add(head, tail);
  ++counts_.entries;
  counts_.linked += head.linked ? 1 : 0;
  counts_.name_bytes += tail.name.size();
  counts_.symlinks += S_ISLNK(head.mode) ? 1 : 0;
  counts_.target_bytes += tail.target.size();
  counts_.data_runs += tail.data_runs.size();
}

/// The one line that names what could not be read.
std::string unreadable_message(const ScanReport& report) {
  std::string what = fmt::format("{} {} cannot be read: ", report.unreadable_count,
                                 report.unreadable_count == 1 ? "entry" : "entries");
  what += fmt::format("{}", fmt::join(report.unreadable_paths, "; "));
  const std::uint64_t unnamed = report.unreadable_count - report.unreadable_paths.size();
  if (unnamed != 0) what += fmt::format("; and {} more", unnamed);
  return what + " (try as root, --exclude or --skip-unreadable)";
}

}  // namespace

WalkCounts& WalkCounts::operator+=(const WalkCounts& more) noexcept {
  entries += more.entries;
  directories += more.directories;
  linked += more.linked;
  name_bytes += more.name_bytes;
  symlinks += more.symlinks;
  target_bytes += more.target_bytes;
  data_runs += more.data_runs;
  return *this;
}

Result<WalkResult> walk_directory(UniqueFd root, const std::string& name,
                                  const ScanOptions& options, const EntryRules& rules,
                                  const ConfinedOpener& opener, const ScanTuning& tuning) {
  Walk walk(options, rules, opener, tuning, std::move(root));
  std::vector<WalkTask> first(1);
  first[0].directory = walk.root_directory.get();
  walk.add(std::move(first));

  const unsigned threads = thread_count(options.threads, kMostThreads);
  std::deque<Worker> workers;
  for (std::uint32_t number = 0; number < threads; ++number) workers.emplace_back(walk, number);
  {
    WorkerPool pool(threads);
    const auto work = [&](unsigned number) { workers[number].run(/*may_change_directory=*/true); };
    if (start_crew(pool, threads, work) == 0) workers.front().run(/*may_change_directory=*/false);
  }

  WalkResult result;
  const auto counts = walk.counts();
  if (!counts) {
    Error error = counts.error();
    error.what = fmt::format("{}: {}", name, error.what);
    return std::unexpected(std::move(error));
  }
  walk.report_troubles(result.report);
  if (walk.sync) result.report.unsynced = walk.sync->blind();
  result.report.outputs_met.resize(options.outputs.size());
  for (const Worker& worker : workers) {
    for (std::size_t i = 0; i < options.outputs.size(); ++i) {
      if (worker.outputs_met()[i]) result.report.outputs_met[i] = true;
    }
    result.report.vanished_count += worker.vanished;
    result.report.mount_points_not_entered += worker.mount_points;
    result.report.excluded_count += worker.excluded;
    result.own_directories = result.own_directories && worker.has_own_directory();
  }
  if (result.report.unreadable_count != 0 && !options.skip_unreadable) {
    return fail(Errc::unreadable, fmt::format("{}: {}", name, unreadable_message(result.report)));
  }
  result.counts = *counts;
  result.root_record = walk.root_record;
  result.root = std::move(walk.root_directory);
  for (Worker& worker : workers) {
    result.directories.push_back(std::move(worker.directories()));
    result.xattrs.push_back(std::move(worker.xattrs()));
  }
  return result;
}

}  // namespace mkvirtfs
