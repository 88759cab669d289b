// SPDX-License-Identifier: BSD-3-Clause
#include "block/page_cache.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace mkvirtfs {
namespace {

/// How far apart one looks: what the kernel reads ahead at a time.
constexpr std::uint64_t kProbeBytes = 128U << 10;
constexpr std::uint64_t kMostProbes = 8;

/// A store with more devices asks again for each of its files.
constexpr std::size_t kMostDevices = 1024;

/// The number of the device that an open file lies on; 0 when nobody can say. Asks no other
/// machine, as fstat() may.
std::uint64_t device_of(int fd) noexcept {
  struct statx status{};
  if (::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &status) != 0) return 0;
  return makedev(status.stx_dev_major, status.stx_dev_minor);
}

}  // namespace

Result<std::size_t> read_fully(int fd, std::uint64_t offset, std::span<std::byte> out,
                               FileOperations& operations) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t count = operations.pread(fd, out.subspan(done), offset + done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read");
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  return done;
}

HostReader::AtOnce HostReader::read_at_once(int fd, Memo& memo, std::uint64_t offset,
                                            std::span<std::byte> out) {
  if (out.empty()) return AtOnce::done;
  const Probe probed = probe(fd, memo, offset, out);
  if (probed.waits == FileWaits::possible) return AtOnce::would_wait;
  if (probed.waits == FileWaits::never) {
    const Result<std::size_t> count = read(fd, offset, out);
    return count && *count == out.size() ? AtOnce::done : AtOnce::failed;
  }
  if (probed.count == static_cast<ssize_t>(out.size())) return AtOnce::done;
  // The first part of it may be in the page cache and the rest not; or the file ends there.
  if (probed.count >= 0 || probed.error == EAGAIN) return AtOnce::would_wait;
  return AtOnce::failed;
}

bool HostReader::is_at_hand(int fd, Memo& memo, Range range) {
  if (range.length == 0) return true;
  // Pages come and go in larger pieces than one, so a few of them speak for all.
  const std::uint64_t step = std::max<std::uint64_t>(kProbeBytes, range.length / kMostProbes + 1);
  std::byte byte;
  for (std::uint64_t at = 0;; at += step) {
    const std::uint64_t probed_at = std::min(at, range.length - 1);
    const Probe probed = probe(fd, memo, range.offset + probed_at, std::span(&byte, 1));
    if (probed.waits != FileWaits::told) return probed.waits == FileWaits::never;
    if (probed.count < 0 && probed.error == EAGAIN) return false;
    if (probed_at == range.length - 1) return true;
  }
}

void HostReader::fetch(int fd, Memo& memo, Range range) {
  if (is_at_hand(fd, memo, range)) return;
  ::posix_fadvise(fd, static_cast<off_t>(range.offset), static_cast<off_t>(range.length),
                  POSIX_FADV_WILLNEED);
  // The advice is only the beginning: what has been read is there.
  std::array<std::byte, 64U << 10> scratch;
  for (std::uint64_t done = 0; done < range.length;) {
    const auto part = std::span(scratch).first(
        static_cast<std::size_t>(std::min<std::uint64_t>(range.length - done, scratch.size())));
    const Result<std::size_t> count = read(fd, range.offset + done, part);
    if (!count || *count < part.size()) return;
    done += part.size();
  }
}

bool HostReader::keeps_fetched(int fd, Memo& memo) {
  std::byte byte;
  if (memo.waits() == FileWaits::unknown) probe(fd, memo, 0, std::span(&byte, 1));
  return memo.waits() != FileWaits::possible;
}

HostReader::Probe HostReader::probe(int fd, Memo& memo, std::uint64_t offset,
                                    std::span<std::byte> out) {
  const FileWaits known = memo.waits();
  if (known == FileWaits::never || known == FileWaits::possible) return {known, 0, 0};
  const ssize_t count = operations_.pread_nowait(fd, out, offset);
  const int error = count < 0 ? errno : 0;
  const FileWaits waits = error == EOPNOTSUPP ? waits_of_device(fd) : FileWaits::told;
  if (waits != known) memo.waits_.store(waits, std::memory_order_relaxed);
  return {waits, count, error};
}

FileWaits HostReader::waits_of_device(int fd) {
  const std::uint64_t number = device_of(fd);
  {
    const MutexLock lock(mutex_);
    const auto known = std::ranges::find(devices_, number, &Device::number);
    if (number != 0 && known != devices_.end()) return known->waits;
  }
  // Another machine may be asked for this, so it is asked once, and without the lock.
  struct statfs status{};
  const bool in_memory = operations_.fstatfs(fd, status) == 0 &&
                         (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC);
  const FileWaits waits = in_memory ? FileWaits::never : FileWaits::possible;
  if (!in_memory) has_waiting_device_.store(true, std::memory_order_relaxed);
  const MutexLock lock(mutex_);
  if (number != 0 && devices_.size() < kMostDevices) devices_.push_back({number, waits});
  return waits;
}

}  // namespace mkvirtfs
