// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/content.h"
#include "block/file_facts.h"
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
  std::uint64_t inode = 0;  ///< with the device mixed in: see device_inode()
  std::uint64_t size_bytes = 0;
  std::int64_t mtime_ns = 0;  ///< since 1970, modulo 2^64
  std::int64_t ctime_ns = 0;

  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

/// What FileIdentity::inode is: of one device, no two inodes have the same.
std::uint64_t device_inode(std::uint64_t device, std::uint64_t inode) noexcept;
/// A time as FileIdentity has it.
std::int64_t time_ns(std::int64_t seconds, std::uint32_t nanoseconds) noexcept;
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
  /// What the identity is made of; nothing when that was not kept.
  virtual std::optional<FileFacts> facts(ContentNo file) const;
};

/// What a read from a file that changed since the scan answers (law 5, `--on-change`).
enum class OnChange : std::uint8_t {
  error,  ///< Errc::source_changed, and the file is named once in the log
  zero,   ///< zeroes for the whole read, named once in the log
  stale,  ///< whatever stands there now, zeroes past its end, named once in the log
};

/// What is compared to see a change (law 5, `--change-check`). The device, the inode, the size and
/// the mtime always are.
enum class ChangeCheck : std::uint8_t {
  /// The ctime, too: the kernel sets it at every change, and nobody can put it back. `ln`, `chmod`
  /// and their like set it as well.
  ctime,
  /// No more: links, modes, owners and attributes may change. That a file was rewritten, and its
  /// size and mtime put back, is not seen.
  mtime,
};

/// How changes are seen, and what is made of them.
struct ChangeRules {
  OnChange on_change = OnChange::error;
  ChangeCheck check = ChangeCheck::ctime;

  // NOLINTNEXTLINE(google-explicit-constructor): a policy alone is rules with the default check
  constexpr ChangeRules(OnChange what, ChangeCheck how = ChangeCheck::ctime) noexcept
      : on_change(what), check(how) {}
};

/// How a file is no longer the one that was scanned.
struct FileDifference {
  std::string what;                 ///< names the field: "its mtime differs"
  std::vector<Setting> hints = {};  ///< what would overlook it
};

/// How the open file `status` differs from what was scanned; nullopt when it is, for these rules,
/// the same unchanged file.
std::optional<FileDifference> file_difference(const FileIdentity& scanned,
                                              const struct stat& status, ChangeCheck check);
/// What is said in the log of a file that changed: `what`, and what comes of it.
std::string change_warning(std::string_view what, OnChange on_change);

/// Reads host files through a bounded set of open descriptors, and sees when they change. The
/// descriptors are a least-recently-used set, sharded so that connections do not meet on one lock;
/// a descriptor that a PinnedFile still holds is closed when the last holder lets go.
///
/// It has room for `most_open_files`: as many as the table has files is enough. All stores of the
/// process together keep at most half of RLIMIT_NOFILE open, and what takes about 1 % of the
/// host's memory.
std::shared_ptr<ContentStore> make_host_files(std::shared_ptr<const HostFileTable> table,
                                              ChangeRules rules, LogSink& log,
                                              std::size_t most_open_files = 4096,
                                              FileOperations& operations = FileOperations::host());

}  // namespace mkvirtfs
