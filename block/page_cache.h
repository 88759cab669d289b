// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "block/extent.h"
#include "block/file_operations.h"
#include "support/error.h"
#include "support/mutex.h"

// What the kernel holds of a host file in memory. Everything here is for readers that must not wait
// for a disk or another machine.

namespace mkvirtfs {

/// Reads until `out` is full, the file ends, or the disk fails: the number of bytes.
Result<std::size_t> read_fully(int fd, std::uint64_t offset, std::span<std::byte> out,
                               FileOperations& operations = FileOperations::host());

/// Whether a read of a file may have to wait, as far as its file system can say so.
enum class FileWaits : std::uint8_t {
  unknown,   ///< it was not asked yet
  told,      ///< the kernel says of each read whether it would wait
  never,     ///< the file lies in the host's memory: tmpfs, ramfs
  possible,  ///< any read may wait, and nobody can say which (FUSE, NFS, CIFS, 9p, virtiofs)
};

/// Reads host files without waiting. One for each store: it remembers what it learned of the
/// devices that the store's files lie on. Any method, any thread.
class HostReader {
 public:
  explicit HostReader(FileOperations& operations = FileOperations::host())
      : operations_(operations) {}

  /// What was learned of one open file; kept beside its descriptor.
  class Memo {
   public:
    FileWaits waits() const noexcept { return waits_.load(std::memory_order_relaxed); }

   private:
    friend class HostReader;
    std::atomic<FileWaits> waits_ = FileWaits::unknown;
  };

  enum class AtOnce : std::uint8_t {
    done,        ///< `out` is filled
    would_wait,  ///< at least a part of it would have to be waited for; `out` is unspecified
    failed,      ///< an ordinary read will say why, and will not wait
  };
  AtOnce read_at_once(int fd, Memo& memo, std::uint64_t offset, std::span<std::byte> out);

  /// Whether the range can be read without waiting. It lies inside the file. A good guess: a few of
  /// its pages speak for all.
  bool is_at_hand(int fd, Memo& memo, Range range);

  /// Waits until the range is in the page cache, as far as it can be.
  void fetch(int fd, Memo& memo, Range range);

  /// Whether a read that follows fetch() does not wait, as a rule. Does not wait itself, but for
  /// the first file of a device.
  bool keeps_fetched(int fd, Memo& memo);

  /// Some device of the store is FileWaits::possible. To open and to examine a file may wait there,
  /// too.
  bool has_waiting_device() const noexcept {
    return has_waiting_device_.load(std::memory_order_relaxed);
  }

  /// read_fully() by this store's operations.
  Result<std::size_t> read(int fd, std::uint64_t offset, std::span<std::byte> out) {
    return read_fully(fd, offset, out, operations_);
  }

 private:
  /// One read with RWF_NOWAIT, unless the memo says that there is no use in it.
  struct Probe {
    FileWaits waits;
    ssize_t count;  ///< of FileWaits::told
    int error;      ///< of FileWaits::told, if count is negative
  };
  Probe probe(int fd, Memo& memo, std::uint64_t offset, std::span<std::byte> out);
  /// Of a file whose file system knows no RWF_NOWAIT.
  FileWaits waits_of_device(int fd) EXCLUDES(mutex_);

  struct Device {
    std::uint64_t number = 0;
    FileWaits waits = FileWaits::unknown;
  };

  FileOperations& operations_;
  std::atomic<bool> has_waiting_device_ = false;
  Mutex mutex_;
  std::vector<Device> devices_ GUARDED_BY(mutex_);
};

}  // namespace mkvirtfs
