// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/host/walk_worker.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <expected>
#include <memory>
#include <new>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "fsgen/tree/node_limits.h"
#include "support/message.h"

namespace mkvirtfs {

void WalkWorker::run(WorkerThread thread) noexcept {
  try {
    // Leaves the working directory that the threads of a process share.
    if (thread == WorkerThread::own && walk_.tuning.use_own_directory && ::unshare(CLONE_FS) == 0) {
      reader_.use_own_directory();
    } else if (walk_.options.entries.xattrs && ::access("/proc/self/fd", F_OK) != 0) {
      walk_.give_up({Errc::unsupported,
                     errno,
                     "extended attributes cannot be read where unshare(2) is refused and /proc is "
                     "missing",
                     {},
                     {{"no-xattrs"}}});
    }
    while (std::optional<WalkTask> task = walk_.take()) {
      if (task->names) {
        look(*task->directory, task->handle, *task->names);
      } else {
        if (task->directory == walk_.root_directory.get()) look_at_root();
        list(*task->directory, task->handle);
      }
      task.reset();  // closes the directory before the last task is done
      walk_.task_done();
    }
  } catch (...) {
    walk_.give_up(error_of_exception("keep the names and attributes of a directory"));
  }
}

bool WalkWorker::sync_failed(int os_errno) {
  if (os_errno != ECANCELED || !walk_.sync) return false;
  std::optional<Error> error = walk_.sync->error();
  if (!error) return false;
  walk_.give_up(std::move(*error));
  return true;
}

template <class Path>
void WalkWorker::failed(int os_errno, Path path) {
  if (sync_failed(os_errno)) return;
  switch (os_errno) {
    case ENOENT:
    case ESTALE:
      ++vanished;
      break;
    case EMFILE:
    case ENFILE:
      walk_.give_up({Errc::io,
                     os_errno,
                     fmt::format("open {}: too many open files", path()),
                     {},
                     {{{}, "a higher ulimit -n"}}});
      break;
    case ENOMEM:
      throw std::bad_alloc();
    default:
      walk_.trouble(path(), std::generic_category().message(os_errno));
      break;
  }
}

void WalkWorker::look_at_root() {
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

DirectoryHandle WalkWorker::open(ScannedDirectory& directory, const DirectoryHandle& parent) {
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
      failed(fd.error(), [&] { return path_of(directory); });
      break;
  }
  return nullptr;
}

void WalkWorker::list(ScannedDirectory& directory, const DirectoryHandle& parent) {
  const DirectoryHandle handle = open(directory, parent);
  if (!handle) return;
  names_.clear();
  if (!walk_.rules.takes_all()) path_ = path_of(directory);
  while (!walk_.stopped()) {
    const ssize_t size = ::getdents64(handle->fd(), listing_.data(), listing_.size());
    if (size == 0) break;
    if (size < 0) {
      if (errno == ENOENT) directory.vanished = true;
      failed(errno, [&] { return path_of(directory); });
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

void WalkWorker::take_name(ScannedDirectory& directory, const DirectoryHandle& handle,
                           const dirent64& found) {
  const std::string_view name(found.d_name);
  if (name == "." || name == "..") return;
  // Some file systems count 255 in other units than bytes, and some are broken.
  if (name.empty() || name.size() > kMostNameBytes || name.contains('/')) {
    walk_.trouble(path_of(directory) + std::string(name), name.size() > kMostNameBytes
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

bool WalkWorker::excludes(const DirectoryHandle& handle, const dirent64& found) {
  bool is_directory = found.d_type == DT_DIR;
  if (found.d_type == DT_UNKNOWN && walk_.rules.need_types()) {
    reader_.enter(handle->fd());
    is_directory = S_ISDIR(reader_.type_of(found.d_name));
  }
  return !walk_.rules.takes(path_, found.d_name,
                            is_directory ? EntryKind::directory : EntryKind::other);
}

void WalkWorker::look(ScannedDirectory& directory, const DirectoryHandle& handle, NameList& names) {
  if (names.size() == 0) return;
  counts_ = {};
  to_list_.clear();
  reader_.enter(handle->fd());
  for (const NameList::Name& name : names.by_inode()) {
    if (walk_.stopped()) return;
    look_at(directory, names.text(name));
  }
  if (builder_.empty()) return;
  ScanSegment segment = builder_.finish(number_);

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

void WalkWorker::look_at(ScannedDirectory& directory, const char* name) {
  auto entry = reader_.look(name);
  if (!entry) {
    failed(entry.error(), [&] { return path_of(directory) + name; });
    return;
  }
  if (entry->mount_point) ++mount_points;
  const ScanRecordHead& head = entry->head;
  if (head.mode == 0) return;  // left out
  ScanRecordTail& tail = entry->tail;
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

}  // namespace mkvirtfs
