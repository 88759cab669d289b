// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "block/content.h"
#include "block/file_operations.h"
#include "support/error.h"
#include "support/log.h"
#include "support/unique_fd.h"

struct stat;
struct statx;

namespace mkvirtfs {

/// What a host file was when it was scanned, for comparison only. Two files with equal identities
/// are, for law 5, the same unchanged file.
struct FileIdentity {
  std::uint64_t inode = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t stamp = 0;  ///< device, mtime and ctime mixed into 64 bits: see file_stamp()

  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

/// Mixes what FileIdentity::stamp is made of. A change of any part changes the stamp (but for 1 in
/// 2^64).
std::uint64_t file_stamp(std::uint64_t device, std::int64_t mtime_s, std::uint32_t mtime_ns,
                         std::int64_t ctime_s, std::uint32_t ctime_ns) noexcept;
FileIdentity identity_of(const struct statx& status) noexcept;
FileIdentity identity_of(const struct stat& status) noexcept;

/// What a scan leaves behind so that its files can be found again. Immutable: any thread, any time.
class HostFileTable {
 public:
  virtual ~HostFileTable() = default;
  virtual FileIdentity identity(ContentNo file) const = 0;
  /// Opens the file for reading, confined to the scanned root: no symlink is followed, no mount
  /// crossed that the scan did not cross. Says nothing of whether it is still the same file.
  virtual Result<UniqueFd> open(ContentNo file) const = 0;
  /// The path below the scanned root, raw bytes.
  virtual std::string path(ContentNo file) const = 0;
};

/// What a read from a file that changed since the scan answers (law 5, `--on-change`).
enum class OnChange : std::uint8_t {
  error,  ///< Errc::source_changed, and the file is named once in the log
  zero,   ///< zeroes for the whole read, named once in the log
  stale,  ///< whatever stands there now, zeroes past its end, named once in the log
};

/// Reads host files through a bounded set of open descriptors, and sees when they change. The
/// descriptors are a least-recently-used set, sharded so that connections do not meet on one lock;
/// a descriptor that a PinnedFile still holds is closed when the last holder lets go.
///
/// It has room for `most_open_files`: as many as the table has files is enough. All stores of the
/// process together keep at most half of RLIMIT_NOFILE open, and what takes about 1 % of the
/// host's memory.
std::shared_ptr<ContentStore> make_host_files(std::shared_ptr<const HostFileTable> table,
                                              OnChange on_change, LogSink& log,
                                              std::size_t most_open_files = 4096,
                                              FileOperations& operations = FileOperations::host());

}  // namespace mkvirtfs
