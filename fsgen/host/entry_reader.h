// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/extent.h"
#include "fsgen/host/read_access.h"
#include "fsgen/host/scan.h"
#include "fsgen/host/scan_records.h"
#include "fsgen/host/source_sync.h"
#include "fsgen/tree/entry_rules.h"
#include "fsgen/tree/xattr_pool.h"
#include "support/confined_open.h"

struct statx;

namespace mkvirtfs {

/// Reads all that the host knows about one entry after another, with as few system calls as
/// possible: statx and llistxattr for most. Belongs to one thread.
///
/// That thread should have a working directory of its own (unshare(2) with CLONE_FS): extended
/// attributes can only be asked for by path, and a bare name in the working directory is by far the
/// fastest one. Without, the way is through /proc/self/fd.
class EntryReader {
 public:
  struct Settings {
    const EntryRules& rules;
    const ConfinedOpener& opener;
    const ReadAccess& access;
    bool xattrs = true;
    bool cross_mounts = false;
    std::uint64_t root_device = 0;
    std::span<const RunOutput> outputs;
    SourceSync* sync = nullptr;  ///< none: nothing is written back
    bool keep_facts = false;
  };

  explicit EntryReader(const Settings& settings)
      : settings_(settings), outputs_met_(settings.outputs.size()), buffer_(kBufferBytes) {}

  /// From now on the thread's working directory is its own, so that enter() may change it.
  void use_own_directory() noexcept { own_directory_ = true; }
  bool has_own_directory() const noexcept { return own_directory_; }

  /// The entries that follow are in that directory, which stays open meanwhile.
  void enter(int directory);

  struct Entry {
    ScanRecordHead head;
    ScanRecordTail tail;  ///< valid until the next entry; without name and directory
    bool mount_point = false;
  };
  /// An entry without a mode is left out: a mount point that is no directory, or an output of the
  /// run. Fails with the errno that says why the entry cannot be taken.
  std::expected<Entry, int> look(const char* name);

  /// The type alone, as in st_mode; 0 when it cannot be found out.
  std::uint32_t type_of(const char* name) const;

  XattrPool& xattrs() noexcept { return pool_; }
  /// For each of the outputs whether it, or its directory, was looked at.
  const std::vector<bool>& outputs_met() const noexcept { return outputs_met_; }

 private:
  // The kernel's own bounds of a list and a value are 64 KiB (XATTR_LIST_MAX, XATTR_SIZE_MAX), but
  // it allocates what it is offered: so a small buffer first.
  static constexpr std::size_t kBufferBytes = 65536;
  static constexpr std::size_t kSmallBytes = 256;

  bool is_mount_point(const struct statx& status) const;
  /// Whether the entry is an output of the run; remembers which of them were met.
  bool is_run_output(const char* name, const struct statx& status);
  /// Has the entry's file system written back, if that is wanted, and looks again.
  std::expected<void, int> sync(const char* name, struct statx& status);
  std::expected<XattrSetNo, int> read_xattrs(const char* name, const struct statx& status);
  bool readable(const char* name, const struct statx& status, FileAcl acl) const;
  void take_identity(const struct statx& status, Entry& entry) const;
  std::expected<void, int> take_type(const char* name, const struct statx& status, Entry& entry);
  void take_attributes(const struct statx& status, ScanRecordHead& head) const;
  std::expected<void, int> find_data_runs(const char* name, const struct statx& status,
                                          Entry& entry);

  Settings settings_;
  XattrPool pool_;
  bool own_directory_ = false;
  int directory_ = -1;
  int base_ = -1;     // what names are relative to: directory_, or the working directory
  std::string path_;  // "/proc/self/fd/N/", or empty
  std::size_t path_bytes_ = 0;
  FileAcl acl_ = FileAcl::possible;          // by the last read_xattrs()
  std::uint64_t xattr_bytes_ = 0;            // of the attributes it met, as ext4 counts them
  std::vector<std::uint64_t> no_xattrs_on_;  // devices
  std::optional<std::uint64_t> synced_device_;
  std::vector<bool> outputs_met_;
  std::vector<char> buffer_;
  std::vector<char> list_;
  std::vector<Range> runs_;
};

}  // namespace mkvirtfs
