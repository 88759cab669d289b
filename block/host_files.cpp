// SPDX-License-Identifier: BSD-3-Clause
#include "block/host_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <memory>
#include <optional>
#include <unordered_set>
#include <utility>

#include "block/page_cache.h"
#include "support/mutex.h"

namespace mkvirtfs {
namespace {

/// Why a file that cannot be reopened is no longer the one that was scanned; nullptr when the
/// errno says something else (no permission, no memory, a broken disk).
const char* gone_reason(int os_errno) noexcept {
  switch (os_errno) {
    case ENOENT:
    case ESTALE:
      return "it is gone";
    case ENOTDIR:
      return "a directory on its path is none any more";
    case ELOOP:
      return "a symbolic link stands on its path";
    case EXDEV:
      return "its path leaves the source";
    case ENXIO:
      return "it is no regular file any more";
    default:
      return nullptr;
  }
}

/// What all stores of the process may keep open together: descriptors are the process's, and so is
/// the kernel's memory for them.
std::size_t most_open_files_of_process() noexcept {
  // Half of the limit: sockets, pinned files and the scan's directories need descriptors too.
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 64;
  // An open file takes the kernel some 2 KiB, which it cannot reclaim: at most 1 % of the memory.
  constexpr std::uint64_t kMemoryPerFile = 256U << 10;
  const auto pages = static_cast<std::uint64_t>(std::max(::sysconf(_SC_PHYS_PAGES), 1L));
  const auto page_bytes = static_cast<std::uint64_t>(std::max(::sysconf(_SC_PAGESIZE), 1L));
  const std::uint64_t by_memory = std::max<std::uint64_t>(pages * page_bytes / kMemoryPerFile, 64);
  return static_cast<std::size_t>(std::min<std::uint64_t>(limit.rlim_cur / 2, by_memory));
}

/// Of the descriptors that the process may have, so many are left free by what is kept: a scan, or
/// a read of a file that is not kept, needs some for a moment.
int highest_kept_descriptor() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > 1U << 30) return 1 << 30;
  const auto most = static_cast<int>(limit.rlim_cur);
  return most - std::min(32, most / 8);
}

/// How many they keep.
std::atomic<std::size_t> open_files_of_process = 0;

/// The store of make_host_files().
///
/// Descriptors stand on shelves: a file belongs on one shelf, and a full shelf gives up its least
/// recently used one. So a read takes one short lock that few other files share, searches a
/// handful of slots, and allocates nothing while its file is open.
///
/// A descriptor is trusted for nothing: after every use fstat() must still show what the scan saw.
/// The kernel changes a file's ctime before the first new byte can be read, so bytes that were
/// read before an unchanged fstat() are the scanned ones.
class HostFiles final : public ContentStore {
 public:
  HostFiles(std::shared_ptr<const HostFileTable> table, ChangeRules rules, LogSink& log,
            std::size_t most_open_files, FileOperations& operations)
      : table_(std::move(table)),
        on_change_(rules.on_change),
        check_(rules.check),
        log_(log),
        reader_(operations),
        shelf_count_(std::max<std::size_t>(1, most_open_files / kSlots)),
        slots_used_(std::clamp<std::size_t>(most_open_files, 1, kSlots)),
        shelves_(std::make_unique<Shelf[]>(shelf_count_)) {}
  ~HostFiles() override { open_files_of_process -= open_files_; }

  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override;
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override;
  bool is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) override;
  void fetch(ContentNo content, std::uint64_t offset, std::uint64_t length) override;
  bool keeps_fetched(ContentNo content) override;
  Result<Pin> pin(ContentNo content) override;
  Result<void> recheck(ContentNo content, const PinnedFile& file) override;
  std::string name(ContentNo content) const override { return table_->path(content); }
  std::optional<HostFile> host_file(ContentNo content) const override {
    const std::optional<FileFacts> facts = table_->facts(content);
    if (!facts) return std::nullopt;
    return HostFile{*facts, {}};
  }

 private:
  struct OpenFile {
    explicit OpenFile(UniqueFd its_fd) : fd(std::move(its_fd)) {}
    int get() const noexcept { return fd.get(); }

    const UniqueFd fd;
    HostReader::Memo memo;
  };
  using FdRef = std::shared_ptr<OpenFile>;

  static constexpr std::size_t kSlots = 16;

  struct Slot {
    FdRef fd;
    std::uint64_t last_use = 0;
    ContentNo file{};
  };

  struct alignas(64) Shelf {
    Mutex mutex;
    std::uint64_t clock GUARDED_BY(mutex) = 0;
    std::array<Slot, kSlots> slots GUARDED_BY(mutex);
  };

  Shelf& shelf_of(ContentNo file) noexcept {
    return shelves_[static_cast<std::size_t>(file) % shelf_count_];
  }

  /// An open descriptor, from the shelf or new; whether it is the scanned file is not yet said.
  Result<FdRef> acquire(ContentNo file);
  FdRef find(ContentNo file);
  /// acquire() for those who must not wait: null where to open the file may.
  Result<FdRef> acquire_at_once(ContentNo file);
  /// Puts `fd` on its shelf, unless another thread was faster; returns the one that stands there.
  FdRef keep(ContentNo file, FdRef fd);
  void drop(ContentNo file);
  /// Counts a file that is to be kept; false when the process keeps enough.
  bool count_one_more() noexcept;
  /// Empties a slot that has a file; gives its descriptor.
  FdRef empty(Slot& slot) noexcept;
  /// Opens by path; out of descriptors, gives up those that nobody uses and tries again.
  Result<UniqueFd> open(ContentNo file);
  bool drop_oldest_of_each_shelf();

  /// Why the open file is not the scanned one; nullopt when it is.
  std::optional<FileDifference> difference(ContentNo file, int fd) const;
  /// Names the file in the log if nobody has, and makes the error that OnChange::error answers.
  Error changed(ContentNo file, const FileDifference& how);
  /// Answers a read of a changed file as the policy says.
  Result<void> read_changed(ContentNo file, const FileDifference& how, std::uint64_t offset,
                            std::span<std::byte> out);
  /// Whatever stands at the path now; zeroes where there is nothing.
  Result<void> read_stale(ContentNo file, std::uint64_t offset, std::span<std::byte> out);

  const std::shared_ptr<const HostFileTable> table_;
  const OnChange on_change_;
  const ChangeCheck check_;
  LogSink& log_;
  HostReader reader_;
  const std::size_t shelf_count_;
  const std::size_t slots_used_;
  const std::unique_ptr<Shelf[]> shelves_;
  const std::size_t most_of_process_ = most_open_files_of_process();
  const int highest_kept_descriptor_ = highest_kept_descriptor();
  std::atomic<std::size_t> open_files_ = 0;  // on the shelves

  Mutex named_mutex_;
  std::unordered_set<std::uint32_t> named_ GUARDED_BY(named_mutex_);  // in the log already
};

Result<void> HostFiles::read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) {
  if (out.empty()) return {};
  const Result<FdRef> fd = acquire(content);
  if (!fd) {
    const char* gone = gone_reason(fd.error().os_errno);
    if (gone == nullptr) return propagate(fd);
    return read_changed(content, {gone}, offset, out);
  }
  const Result<std::size_t> got = reader_.read((*fd)->get(), offset, out);
  if (const std::optional<FileDifference> how = difference(content, (*fd)->get())) {
    drop(content);
    return read_changed(content, *how, offset, out);
  }
  if (!got) {
    return fail_errno(Errc::io, got.error().os_errno,
                      fmt::format("read {} at {}", name(content), offset));
  }
  if (*got < out.size()) {
    // What stat and read tell of such a file never agreed (/sys has them).
    return read_changed(content, {fmt::format("it ends at byte {} already", offset + *got)}, offset,
                        out);
  }
  return {};
}

Result<bool> HostFiles::read_at_once(ContentNo content, std::uint64_t offset,
                                     std::span<std::byte> out) {
  if (out.empty()) return true;
  if (const Result<FdRef> fd = acquire_at_once(content)) {
    if (*fd == nullptr) return false;
    HostReader::Memo& memo = (*fd)->memo;
    const HostReader::AtOnce outcome = reader_.read_at_once((*fd)->get(), memo, offset, out);
    // To examine the file may have to wait just as well.
    if (memo.waits() == FileWaits::possible) return false;
    if (outcome != HostReader::AtOnce::failed && !difference(content, (*fd)->get())) {
      return outcome == HostReader::AtOnce::done;
    }
  }
  // Whatever is wrong is said there.
  const Result<void> result = read(content, offset, out);
  if (!result) return propagate(result);
  return true;
}

bool HostFiles::is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) {
  const Result<FdRef> fd = acquire_at_once(content);
  if (!fd) return true;  // pin() reports what is wrong
  return *fd != nullptr && reader_.is_at_hand((*fd)->get(), (*fd)->memo, {offset, length});
}

void HostFiles::fetch(ContentNo content, std::uint64_t offset, std::uint64_t length) {
  if (const Result<FdRef> fd = acquire(content)) {
    reader_.fetch((*fd)->get(), (*fd)->memo, {offset, length});
  }
}

bool HostFiles::keeps_fetched(ContentNo content) {
  // The read that follows reports what is wrong, and it may have to open the file.
  const Result<FdRef> fd = acquire(content);
  return fd ? reader_.keeps_fetched((*fd)->get(), (*fd)->memo) : !reader_.has_waiting_device();
}

Result<ContentStore::Pin> HostFiles::pin(ContentNo content) {
  Result<FdRef> fd = acquire(content);
  std::optional<FileDifference> how;
  if (fd) {
    how = difference(content, (*fd)->get());
    if (!how) {
      const UniqueFd* const descriptor = &(*fd)->fd;
      return Pin{PinnedFile(std::shared_ptr<const UniqueFd>(std::move(*fd), descriptor)), 0};
    }
    drop(content);
  } else {
    const char* gone = gone_reason(fd.error().os_errno);
    if (gone == nullptr) return propagate(fd);
    how.emplace(gone);
  }
  Error error = changed(content, *how);
  if (on_change_ == OnChange::error) return std::unexpected(std::move(error));
  return Pin{};  // read() knows what to make of it
}

Result<void> HostFiles::recheck(ContentNo content, const PinnedFile& file) {
  const std::optional<FileDifference> how = difference(content, file.fd());
  if (!how) return {};
  drop(content);
  return std::unexpected(changed(content, *how));
}

Result<HostFiles::FdRef> HostFiles::acquire(ContentNo file) {
  if (FdRef fd = find(file)) return fd;
  Result<UniqueFd> opened = open(file);
  if (!opened) return propagate(opened);
  return keep(file, std::make_shared<OpenFile>(std::move(*opened)));
}

Result<HostFiles::FdRef> HostFiles::acquire_at_once(ContentNo file) {
  if (FdRef fd = find(file)) return fd;
  if (reader_.has_waiting_device()) return nullptr;
  return acquire(file);
}

HostFiles::FdRef HostFiles::find(ContentNo file) {
  Shelf& shelf = shelf_of(file);
  const MutexLock lock(shelf.mutex);
  for (Slot& slot : shelf.slots) {
    if (slot.fd && slot.file == file) {
      slot.last_use = ++shelf.clock;
      return slot.fd;
    }
  }
  return nullptr;
}

HostFiles::FdRef HostFiles::keep(ContentNo file, FdRef fd) {
  Shelf& shelf = shelf_of(file);
  FdRef given_up;  // closed after the lock is left: close() may take its time
  const MutexLock lock(shelf.mutex);
  Slot* empty = nullptr;
  Slot* oldest = nullptr;
  for (std::size_t i = 0; i < slots_used_; ++i) {
    Slot& slot = shelf.slots[i];
    if (!slot.fd) {
      empty = &slot;
    } else if (slot.file == file) {
      given_up = std::move(fd);
      return slot.fd;
    } else if (oldest == nullptr || slot.last_use < oldest->last_use) {
      oldest = &slot;
    }
  }
  // The kernel gives the lowest free descriptor: all before it are in use.
  const bool is_scarce = fd->get() >= highest_kept_descriptor_;
  Slot* const place = empty != nullptr && !is_scarce && count_one_more() ? empty : oldest;
  if (place == nullptr) return fd;  // used once and closed
  given_up = std::exchange(place->fd, fd);
  place->file = file;
  place->last_use = ++shelf.clock;
  return fd;
}

bool HostFiles::count_one_more() noexcept {
  if (open_files_of_process.fetch_add(1, std::memory_order_relaxed) >= most_of_process_) {
    open_files_of_process.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  open_files_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

HostFiles::FdRef HostFiles::empty(Slot& slot) noexcept {
  FdRef fd = std::move(slot.fd);
  slot = Slot{};
  open_files_.fetch_sub(1, std::memory_order_relaxed);
  open_files_of_process.fetch_sub(1, std::memory_order_relaxed);
  return fd;
}

void HostFiles::drop(ContentNo file) {
  Shelf& shelf = shelf_of(file);
  FdRef given_up;
  const MutexLock lock(shelf.mutex);
  for (Slot& slot : shelf.slots) {
    if (slot.fd && slot.file == file) given_up = empty(slot);
  }
}

Result<UniqueFd> HostFiles::open(ContentNo file) {
  while (true) {
    Result<UniqueFd> opened = table_->open(file);
    if (opened) return opened;
    const int error = opened.error().os_errno;
    if ((error != EMFILE && error != ENFILE) || !drop_oldest_of_each_shelf()) return opened;
  }
}

bool HostFiles::drop_oldest_of_each_shelf() {
  bool dropped = false;
  for (std::size_t i = 0; i < shelf_count_; ++i) {
    Shelf& shelf = shelves_[i];
    FdRef given_up;
    const MutexLock lock(shelf.mutex);
    Slot* oldest = nullptr;
    for (Slot& slot : shelf.slots) {
      if (slot.fd && (oldest == nullptr || slot.last_use < oldest->last_use)) oldest = &slot;
    }
    if (oldest == nullptr) continue;
    given_up = empty(*oldest);
    dropped = true;
  }
  return dropped;
}

std::optional<FileDifference> HostFiles::difference(ContentNo file, int fd) const {
  struct stat status;
  if (::fstat(fd, &status) != 0) {
    return FileDifference{fmt::format("it cannot be examined (errno {})", errno)};
  }
  return file_difference(table_->identity(file), status, check_);
}

Error HostFiles::changed(ContentNo file, const FileDifference& how) {
  Error error{Errc::source_changed,
              0,
              fmt::format("{} changed after it was scanned: {}", name(file), how.what),
              {},
              how.hints};
  {
    const MutexLock lock(named_mutex_);
    if (!named_.insert(static_cast<std::uint32_t>(file)).second) return error;
  }
  log_.write_with_hints(LogLevel::warning, change_warning(error.what, on_change_), error.hints);
  return error;
}

Result<void> HostFiles::read_changed(ContentNo file, const FileDifference& how,
                                     std::uint64_t offset, std::span<std::byte> out) {
  Error error = changed(file, how);
  switch (on_change_) {
    case OnChange::error:
      return std::unexpected(std::move(error));
    case OnChange::zero:
      std::ranges::fill(out, std::byte{0});
      return {};
    case OnChange::stale:
      return read_stale(file, offset, out);
  }
  __builtin_unreachable();
}

Result<void> HostFiles::read_stale(ContentNo file, std::uint64_t offset, std::span<std::byte> out) {
  // Not kept on a shelf: what stands there may change again at any time.
  std::size_t got = 0;
  Result<UniqueFd> fd = open(file);
  if (!fd && gone_reason(fd.error().os_errno) == nullptr) {
    return propagate(fd);
  }
  struct stat status;
  if (fd && ::fstat(fd->get(), &status) == 0 && S_ISREG(status.st_mode)) {
    const Result<std::size_t> count = reader_.read(fd->get(), offset, out);
    if (!count) {
      return fail_errno(Errc::io, count.error().os_errno,
                        fmt::format("read {} at {}", name(file), offset));
    }
    got = *count;
  }
  std::ranges::fill(out.subspan(got), std::byte{0});
  return {};
}

}  // namespace

std::optional<FileFacts> HostFileTable::facts(ContentNo) const { return std::nullopt; }

std::uint64_t device_inode(std::uint64_t device, std::uint64_t inode) noexcept {
  // Devices are small numbers that differ in a few bits, and so are inodes: spread over all bits,
  // those of the one hardly ever make up for those of the other.
  std::uint64_t spread = (device ^ 0x9e3779b97f4a7c15U) * 0xff51afd7ed558ccdU;
  spread ^= spread >> 32;
  return inode ^ spread;
}

std::int64_t time_ns(std::int64_t seconds, std::uint32_t nanoseconds) noexcept {
  constexpr std::uint64_t kNanosecondsPerSecond = 1'000'000'000;
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(seconds) * kNanosecondsPerSecond +
                                   nanoseconds);
}

FileIdentity identity_of(const struct statx& status) noexcept {
  const dev_t device = makedev(status.stx_dev_major, status.stx_dev_minor);
  return {device_inode(device, status.stx_ino), status.stx_size,
          time_ns(status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec),
          time_ns(status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec)};
}

FileIdentity identity_of(const struct stat& status) noexcept {
  return {device_inode(status.st_dev, status.st_ino), static_cast<std::uint64_t>(status.st_size),
          time_ns(status.st_mtim.tv_sec, static_cast<std::uint32_t>(status.st_mtim.tv_nsec)),
          time_ns(status.st_ctim.tv_sec, static_cast<std::uint32_t>(status.st_ctim.tv_nsec))};
}

std::optional<FileDifference> file_difference(const FileIdentity& scanned,
                                              const struct stat& status, ChangeCheck check) {
  const FileIdentity now = identity_of(status);
  if (now == scanned) return std::nullopt;
  if (now.inode != scanned.inode) {
    return FileDifference{"another file stands there (its inode or device differs)"};
  }
  if (now.size_bytes != scanned.size_bytes) {
    return FileDifference{
        fmt::format("its size was {} bytes and is {}", scanned.size_bytes, now.size_bytes)};
  }
  if (status.st_nlink == 0) {
    return FileDifference{"it was deleted or replaced (it has no name any more)"};
  }
  if (now.mtime_ns != scanned.mtime_ns) {
    return FileDifference{"it was written to (its mtime differs)"};
  }
  if (check == ChangeCheck::mtime) return std::nullopt;
  return FileDifference{
      "its ctime differs: links, mode, owner or attributes changed, or its mtime was set back",
      {{"change-check", "mtime"}}};
}

std::string change_warning(std::string_view what, OnChange on_change) {
  constexpr std::array<std::string_view, 3> kConsequences = {
      "reads of it fail", "it reads as zeroes", "what stands there now is served"};
  return fmt::format("{}; {}", what, kConsequences[static_cast<std::size_t>(on_change)]);
}

std::shared_ptr<ContentStore> make_host_files(std::shared_ptr<const HostFileTable> table,
                                              ChangeRules rules, LogSink& log,
                                              std::size_t most_open_files,
                                              FileOperations& operations) {
  return std::make_shared<HostFiles>(std::move(table), rules, log,
                                     std::min(most_open_files, most_open_files_of_process()),
                                     operations);
}

}  // namespace mkvirtfs
